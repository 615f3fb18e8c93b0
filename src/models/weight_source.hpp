// SPDX-License-Identifier: Apache-2.0
// The tensors of a model's checkpoint, found by their names after a prefix, and which of them were read.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/call_checks.hpp"
#include "models/factors.hpp"
#include "multihead/linear.hpp"
#include "multihead/safetensors.hpp"
#include "multihead/types.hpp"

namespace multihead {

constexpr std::int64_t kAny = -1;  // an extent that config.json does not say

// The entry of a table by its name, or an error that lists the names.
template <class Table, class Name>
const auto& named(const char* function, const Table& table, std::string_view wanted, const char* field,
                  const Name& name_of) {
  std::string known;
  for (const auto& entry : table) {
    if (name_of(entry) == wanted) return entry;
    known += (known.empty() ? "" : ", ") + std::string(name_of(entry));
  }
  fail(function, ErrorCode::unsupported,
       std::string(field) + " is '" + std::string(wanted) + "'; it must be one of " + known);
}

// What config.json calls hidden_act, or its kin.
Activation activation_of(const char* function, std::string_view name);

// Every rule of the types in which a model takes its weights and multiplies: EncoderOptions, DecoderOptions.
void check_types(const char* function, Type precision, Type products);

// precision: each element is rounded to it and kept as float32.
class WeightSource {
 public:
  // words: the name, after the prefix, of the embeddings of words, by which the prefix is known.
  WeightSource(const char* function, const Checkpoint& checkpoint, std::string_view words, Type precision);

  const std::string& prefix() const noexcept { return prefix_; }
  [[noreturn]] void malformed(std::string_view tensor, const std::string& rule) const;
  bool has(const std::string& name) const { return checkpoint_.find(prefix_ + name) != nullptr; }

  // By its name after the prefix, or by all of it.
  const StoredTensor& tensor(const std::string& name, const std::vector<std::int64_t>& shape) {
    return whole_name(prefix_ + name, shape);
  }
  const StoredTensor& whole_name(const std::string& name, const std::vector<std::int64_t>& shape);

  Elements<float> elements(const StoredTensor& tensor) const;
  // name.weight, (out, in) or (in, out) as order says, and name.bias. T: what it multiplies.
  template <class T>
  Linear<T> linear(const std::string& name, std::int64_t in, std::int64_t out, WeightOrder order) {
    const bool in_out = order == WeightOrder::in_out;
    const std::vector<std::int64_t> shape{in_out ? in : out, in_out ? out : in};
    const Elements<float> weight = elements(tensor(name + ".weight", shape));
    const Elements<float> bias = elements(tensor(name + ".bias", {out}));
    std::vector<T> weights, biases;
    return Linear<T>({factors(weight.values(), weights).data(), {shape[0], shape[1]}}, order,
                     factors(bias.values(), biases));
  }

  std::vector<const StoredTensor*> unread() const;

 private:
  const char* function_;
  const Checkpoint& checkpoint_;
  Type precision_;
  std::string prefix_;
  std::set<std::string_view> read_;
};

}  // namespace multihead

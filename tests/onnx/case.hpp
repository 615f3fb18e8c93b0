// SPDX-License-Identifier: Apache-2.0
// One case of ONNX's test data on disk: operator, attributes and tensors, checked as they are read.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "multihead/io.hpp"

namespace multihead::onnx {

using Shape = std::vector<std::int64_t>;

// A case that breaks a rule of its format or of its operator. The sentence names the file and the rule.
class Malformed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A case that asks for what this program cannot judge.
struct Skipped {
  std::string reason;
};

// The operators that are run; the tensors of others are not read.
inline constexpr std::array<std::string_view, 3> kOperators{"Attention", "RotaryEmbedding", "TensorScatter"};

using Attribute = std::variant<std::int64_t, double, std::string>;

struct Case {
  std::filesystem::path file;  // its case.json
  std::string name, op, commit;
  std::int64_t opset = 0;
  std::map<std::string, Attribute> attributes;
  std::map<std::string, Array> inputs, outputs;

  bool runs() const;
  [[noreturn]] void malformed(const std::string& rule) const;

  const Array* find(const std::string& input) const;
  const Array& input(const std::string& tensor) const;
  const Array& output(const std::string& tensor) const;
  // Refuses names that the operator does not have.
  void only(std::initializer_list<std::string_view> attribute_names,
            std::initializer_list<std::string_view> input_names,
            std::initializer_list<std::string_view> output_names) const;
  void expect_shape(const std::string& tensor, const Array& array, const Shape& wanted) const;
  void expect_type(const std::string& tensor, const Array& array, ElementType wanted) const;
  // The elements of an input of int64.
  std::vector<std::int64_t> integers(const std::string& tensor) const;

  std::int64_t integer(const std::string& attribute, std::int64_t fallback) const;
  std::optional<double> number(const std::string& attribute) const;
  std::string word(const std::string& attribute, const std::string& fallback) const;
};

// Reads folder/case.json and the tensors it names. Throws Malformed, and Error where a tensor cannot be read.
Case read_case(const std::filesystem::path& folder);

// "(2, 3)".
std::string shape_text(const Shape& shape);

}  // namespace multihead::onnx

// SPDX-License-Identifier: Apache-2.0
// JSON to tensors: storage for what the strides reach, outputs filled with a pattern.
#include "problem.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

namespace bad_input {

std::string models;

namespace {

constexpr std::byte kPattern{0xA5};
constexpr std::int64_t kMost = 1 << 16;  // elements; tensors beyond have none of their own and are refused unread

std::size_t size_of(mh_type type) {
  constexpr std::array<std::size_t, 7> sizes{8, 4, 8, 2, 2, 8, 1};
  return type >= 1 && type <= 6 ? sizes[static_cast<std::size_t>(type)] : 8;
}

// Elements from the first to the last that strides reach, or kMost.
std::int64_t reach(const mh_tensor& tensor) {
  std::int64_t last = 1;
  for (int axis = 0; axis < std::min(tensor.rank, 4); ++axis) {
    const std::int64_t extent = tensor.shape[axis], stride = tensor.strides[axis];
    if (extent > kMost || std::abs(stride) > kMost) return kMost;
    if (extent > 1) last += (extent - 1) * std::max<std::int64_t>(stride, 0);
  }
  return std::min(last, kMost);
}

}  // namespace

mh_type type_of(const std::string& name) {
  const std::array<const char*, 6> names{"float32", "float64", "bfloat16", "float16", "int64", "bool"};
  const auto at = std::find(names.begin(), names.end(), name);
  return at == names.end() ? 99 : static_cast<mh_type>(at - names.begin() + 1);
}

double number(const Json& value) {
  return value.is_string() ? std::strtod(value.get<std::string>().c_str(), nullptr) : value.get<double>();
}

double number(const Json& holder, const char* name, double otherwise) {
  return holder.contains(name) ? number(holder[name]) : otherwise;
}

Problem::Problem(const Json& base, const Json& change) {
  Json merged = base;
  merged.merge_patch(change);
  options_ = merged.value("options", Json::object());
  run_ = merged.value("run", Json::object());
  call_ = merged.value("call", Json::object());
  for (const auto& [name, description] : merged.at("tensors").items()) add(name, description);
  for (const auto& [name, description] : merged.at("tensors").items())
    if (description.contains("same_as"))
      tensors_.at(name).tensor.data = tensors_.at(description["same_as"]).bytes.data();
}

void Problem::add(const std::string& name, const Json& description) {
  if (description.value("absent", false)) return;
  if (description.contains("device")) throw CannotBeSaid("a pointer has no device");
  if (description.value("readonly", false)) throw CannotBeSaid("a pointer to an output is not read-only");
  Owned& owned = tensors_[name];
  mh_tensor& tensor = owned.tensor;
  const std::vector<std::int64_t> shape = description.at("shape");
  tensor.type = type_of(description.value("type", "float32"));
  tensor.rank = static_cast<std::int32_t>(shape.size());
  std::int64_t step = 1;
  for (auto axis = static_cast<std::int64_t>(std::min<std::size_t>(shape.size(), 4)) - 1; axis >= 0; --axis) {
    tensor.shape[axis] = shape[static_cast<std::size_t>(axis)];
    tensor.strides[axis] = step;
    if (__builtin_mul_overflow(step, std::max<std::int64_t>(tensor.shape[axis], 1), &step)) step = INT64_MAX;
  }
  if (description.contains("strides"))
    for (std::size_t axis = 0; axis < description["strides"].size(); ++axis)
      tensor.strides[axis] = description["strides"][axis];
  owned.output = description.value("output", false);
  const auto count = static_cast<std::size_t>(reach(tensor));
  owned.bytes.assign(count * size_of(tensor.type) + 8, owned.output ? kPattern : std::byte{0});
  tensor.data = description.value("null", false) ? nullptr : owned.bytes.data() + description.value("misaligned", 0);
}

const mh_tensor* Problem::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second.tensor;
}

const mh_tensor* Problem::list(const Json& holder, const std::string& name, mh_type type) {
  if (!holder.contains(name)) return nullptr;
  const Json& values = holder[name];
  if (values.is_object()) {
    add(name, values);
    return tensor(name);
  }
  Owned& owned = tensors_[name];
  const auto count = static_cast<std::int64_t>(values.size());
  const std::int64_t rows = count > 0 && values[0].is_array() ? static_cast<std::int64_t>(values[0].size()) : -1;
  owned.tensor = {nullptr, type, rows < 0 ? 1 : 2, {count, std::max<std::int64_t>(rows, 0), 0, 0}, {1, 1, 0, 0}};
  if (rows >= 0) owned.tensor.strides[0] = rows;
  const Json flat = values.flatten();
  owned.bytes.resize((flat.size() + 1) * 8);
  std::size_t at = 0;
  const auto append = [&](const Json& value) {
    if (type == MH_INT64)
      reinterpret_cast<std::int64_t*>(owned.bytes.data())[at++] = value.get<std::int64_t>();
    else
      reinterpret_cast<double*>(owned.bytes.data())[at++] = number(value);
  };
  for (const Json& value : values)
    if (value.is_array())
      for (const Json& inner : value) append(inner);
    else
      append(value);
  owned.tensor.data = owned.bytes.data();
  return &owned.tensor;
}

std::string Problem::folder() const { return models + "/" + call_.at("folder").get<std::string>(); }

bool Problem::written() const {
  return std::any_of(tensors_.begin(), tensors_.end(), [](const auto& entry) {
    const Owned& owned = entry.second;
    return owned.output &&
           std::any_of(owned.bytes.begin(), owned.bytes.end(), [](std::byte value) { return value != kPattern; });
  });
}

}  // namespace bad_input

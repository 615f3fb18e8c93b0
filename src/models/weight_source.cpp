// SPDX-License-Identifier: Apache-2.0
// Tensors by their names, held to the shapes that config.json says.
#include "models/weight_source.hpp"

#include <utility>

namespace multihead {

namespace {

constexpr std::pair<std::string_view, Activation> kActivations[] = {
    {"gelu", Activation::gelu}, {"gelu_new", Activation::gelu_tanh}, {"gelu_pytorch_tanh", Activation::gelu_tanh},
    {"relu", Activation::relu}, {"silu", Activation::silu},          {"swish", Activation::silu},
};

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::int64_t extent : shape)
    text += (text.size() > 1 ? ", " : "") + (extent < 0 ? "any" : std::to_string(extent));
  return text + "]";
}

template <class T>
Elements<float> rounded(const StoredTensor& tensor, std::string_view dtype) {
  const Elements<float> exact(tensor);
  std::vector<T> values;
  values.reserve(exact.values().size());
  for (const float value : exact.values()) values.emplace_back(value);
  return Elements<float>(StoredTensor{tensor.name, dtype, tensor.shape, std::as_bytes(std::span(values))});
}

}  // namespace

Activation activation_of(const char* function, std::string_view name) {
  return named(function, kActivations, name, "hidden_act", [](const auto& entry) { return entry.first; }).second;
}

void check_types(const char* function, Type precision, Type products) {
  if (precision != Type::float32 && precision != Type::bfloat16 && precision != Type::float16)
    fail(function, ErrorCode::bad_option,
         "precision is " + std::string(type_name(precision)) + "; it must be float32, bfloat16 or float16");
  if (products != Type::float32 && products != Type::bfloat16)
    fail(function, ErrorCode::bad_option,
         "products is " + std::string(type_name(products)) + "; it must be float32 or bfloat16");
}

WeightSource::WeightSource(const char* function, const Checkpoint& checkpoint, std::string_view words, Type precision)
    : function_(function), checkpoint_(checkpoint), precision_(precision) {
  const StoredTensor* found = nullptr;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    if (!tensor.name.ends_with(words)) continue;
    const std::string_view before = tensor.name.substr(0, tensor.name.size() - words.size());
    if (!before.empty() && !before.ends_with('.')) continue;
    if (found)
      malformed(tensor.name, "and '" + std::string(found->name) + "' are both word embeddings; there must be one");
    found = &tensor, prefix_ = before;
  }
  if (!found) malformed(words, "is missing, under every prefix");
}

void WeightSource::malformed(std::string_view tensor, const std::string& rule) const {
  fail(function_, ErrorCode::file_malformed,
       checkpoint_.folder().string() + ": tensor '" + std::string(tensor) + "' " + rule);
}

const StoredTensor& WeightSource::whole_name(const std::string& name, const std::vector<std::int64_t>& shape) {
  const StoredTensor* found = checkpoint_.find(name);
  if (!found) malformed(name, "is missing");
  bool fits = found->shape.size() == shape.size();
  for (std::size_t axis = 0; fits && axis < shape.size(); ++axis)
    fits = shape[axis] == kAny || shape[axis] == found->shape[axis];
  if (!fits)
    malformed(found->name,
              "has shape " + shape_text(found->shape) + "; by config.json it must be " + shape_text(shape));
  read_.insert(found->name);
  return *found;
}

Elements<float> WeightSource::elements(const StoredTensor& tensor) const {
  switch (precision_) {
    case Type::bfloat16:
      return rounded<BFloat16>(tensor, "BF16");
    case Type::float16:
      return rounded<Float16>(tensor, "F16");
    default:
      return Elements<float>(tensor);
  }
}

std::vector<const StoredTensor*> WeightSource::unread() const {
  std::vector<const StoredTensor*> left;
  for (const StoredTensor& tensor : checkpoint_.tensors())
    if (!read_.count(tensor.name)) left.push_back(&tensor);
  return left;
}

}  // namespace multihead

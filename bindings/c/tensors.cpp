// SPDX-License-Identifier: Apache-2.0
// The rules of mh_tensor.
#include "tensors.hpp"

#include <array>
#include <limits>
#include <string>

namespace multihead::c {

namespace {

struct TypeRow {
  const char* word;
  std::size_t size;
};
constexpr std::array<TypeRow, 9> kTypes{{
    {"", 0},
    {"float32", 4},
    {"float64", 8},
    {"bfloat16", 2},
    {"float16", 2},
    {"int64", 8},
    {"bool", 1},
    {"uint32", 4},
    {"int32", 4},
}};

const TypeRow& row_of(mh_type type) noexcept {
  return kTypes[type > 0 && type < static_cast<mh_type>(kTypes.size()) ? static_cast<std::size_t>(type) : 0];
}

[[noreturn]] void bad_rank(const Role& role, int32_t rank, const std::string& rule) {
  bad_argument(role.function, std::string(role.name) + " has rank " + std::to_string(rank) + "; it must be " + rule);
}

[[noreturn]] void bad_data(const Role& role, const mh_tensor& tensor) {
  if (!tensor.data) bad_argument(role.function, std::string(role.name) + " is null; it must point to its elements");
  bad_argument(role.function, std::string(role.name) + " is at an address that is no multiple of " +
                                  std::to_string(type_size(tensor.type)) + "; elements of " + type_word(tensor.type) +
                                  " must be");
}

void check_data(const Role& role, const mh_tensor& tensor) {
  bool elements = true;
  for (int32_t axis = 0; axis < tensor.rank; ++axis) elements = elements && tensor.shape[axis] != 0;
  if (!elements) return;
  const std::size_t size = type_size(tensor.type);
  if (!tensor.data || reinterpret_cast<std::uintptr_t>(tensor.data) % size != 0) bad_data(role, tensor);
}

void check_any_rank(const Role& role, const mh_tensor& tensor) {
  if (tensor.rank < 1 || tensor.rank > 4) bad_rank(role, tensor.rank, "1 to 4");
}

// Shape and strides of a contiguous tensor.
void lay_out(const Role& role, mh_type type, int32_t rank, const int64_t* shape, mh_tensor& made) {
  std::int64_t step = 1, bytes = 0;
  for (int32_t axis = rank - 1; axis >= 0; --axis) {
    const std::int64_t extent = shape[axis];
    if (extent < 0)
      shape_mismatch(role.function, std::string(role.name) + " has extent " + std::to_string(extent) + " on axis " +
                                        std::to_string(axis) + "; it may not be negative");
    made.shape[axis] = extent;
    made.strides[axis] = step;
    if (__builtin_mul_overflow(step, extent > 0 ? extent : 1, &step) ||
        __builtin_mul_overflow(step, static_cast<std::int64_t>(type_size(type)), &bytes))
      shape_mismatch(role.function, std::string(role.name) + " has more bytes than 63 bits count");
  }
}

}  // namespace

std::string type_word(mh_type type) {
  const TypeRow& row = row_of(type);
  return row.size ? row.word : std::to_string(type) + ", which is none";
}

std::size_t type_size(mh_type type) noexcept { return row_of(type).size; }

void missing(const Role& role) {
  bad_argument(role.function, std::string(role.name) + " is missing; it must be given");
}

void check_tensor(const Role& role, const mh_tensor& tensor, mh_type type, int32_t rank) {
  if (tensor.rank != rank) bad_rank(role, tensor.rank, std::to_string(rank));
  if (tensor.type != type)
    bad_type(role.function,
             std::string(role.name) + " has type " + type_word(tensor.type) + "; it must be " + type_word(type));
  check_data(role, tensor);
}

void check_broadcast(const Role& role, const mh_tensor& tensor) {
  check_any_rank(role, tensor);
  check_data(role, tensor);
}

void check_contiguous(const Role& role, const mh_tensor& tensor, mh_type type) {
  check_any_rank(role, tensor);
  check_tensor(role, tensor, type, tensor.rank);
  mh_tensor wanted{};
  lay_out(role, tensor.type, tensor.rank, tensor.shape, wanted);
  for (int32_t axis = 0; axis < tensor.rank; ++axis)
    if (tensor.shape[axis] > 1 && tensor.strides[axis] != wanted.strides[axis])
      shape_mismatch(role.function, std::string(role.name) + " has stride " + std::to_string(tensor.strides[axis]) +
                                        " on axis " + std::to_string(axis) + "; it must be " +
                                        std::to_string(wanted.strides[axis]));
}

std::int64_t list_length(const Role& role, const mh_tensor& tensor, mh_type type) {
  check_tensor(role, tensor, type, 1);
  const std::int64_t length = tensor.shape[0];
  if (length < 0)
    shape_mismatch(role.function,
                   std::string(role.name) + " has extent " + std::to_string(length) + "; it may not be negative");
  if (length > std::numeric_limits<std::int64_t>::max() / 16)
    shape_mismatch(role.function, std::string(role.name) + " has extents and strides beyond the address space");
  if (length > 1 && tensor.strides[0] != 1)
    shape_mismatch(role.function,
                   std::string(role.name) + " has stride " + std::to_string(tensor.strides[0]) + "; it must be 1");
  return length;
}

namespace {

BroadcastView broadcast(const mh_tensor& tensor) {
  BroadcastView view;
  view.data = tensor.data;
  view.rank = tensor.rank;
  const auto rank = static_cast<std::size_t>(tensor.rank);
  for (std::size_t axis = 0; axis < rank; ++axis) {
    view.extents[4 - rank + axis] = tensor.shape[axis];
    view.strides[4 - rank + axis] = stride_of(tensor, static_cast<int>(axis));
  }
  return view;
}

}  // namespace

Mask mask(const Role& role, const mh_tensor* tensor) {
  Mask mask;
  if (!is_given(tensor)) return mask;
  if (tensor->type != MH_BOOL)
    bad_type(role.function, std::string(role.name) + " has type " + type_word(tensor->type) + "; it must be bool");
  check_broadcast(role, *tensor);
  mask.view = broadcast(*tensor);
  return mask;
}

Bias bias(const Role& role, const mh_tensor* tensor) {
  Bias bias;
  if (!is_given(tensor)) return bias;
  bias.type = element_type(role, tensor->type);
  check_broadcast(role, *tensor);
  bias.view = broadcast(*tensor);
  return bias;
}

RelativeBias relative_bias(const Role& role, const mh_tensor* tensor, bool bidirectional, std::int64_t max_distance) {
  RelativeBias table;
  if (!is_given(tensor)) return table;
  table.type = element_type(role, tensor->type);
  check_tensor(role, *tensor, tensor->type, 2);
  if (tensor->shape[0] == 0 || tensor->shape[1] == 0)
    shape_mismatch(role.function, std::string(role.name) + " has no elements; it must have some, or not be given");
  table.data = tensor->data;
  table.extents = {tensor->shape[0], tensor->shape[1]};
  table.strides = {stride_of(*tensor, 0), stride_of(*tensor, 1)};
  table.bidirectional = bidirectional;
  table.max_distance = max_distance;
  return table;
}

mh_type type_of(const Role& role, const mh_tensor* tensor) {
  if (!is_given(tensor)) missing(role);
  return tensor->type;
}

Type element_type(const Role& role, mh_type type) {
  return with_type(role, type, []<class T>() { return kTypeOf<T>; });
}

}  // namespace multihead::c

mh_status mh_tensor_init(mh_tensor* tensor, const void* data, mh_type type, int32_t rank, const int64_t* shape) {
  using namespace multihead::c;
  constexpr const char* kName = "mh_tensor_init";
  return guarded([&] {
    wanted(kName, "tensor", tensor);
    wanted(kName, "shape", shape);
    if (type_size(type) == 0) bad_argument(kName, "type is " + type_word(type) + "; it must be one of mh_type");
    check_enumerated(kName, "rank", rank, 1, 4);
    mh_tensor made{const_cast<void*>(data), type, rank, {}, {}};
    lay_out({kName, "the tensor"}, type, rank, shape, made);
    *tensor = made;
  });
}

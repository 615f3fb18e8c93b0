// SPDX-License-Identifier: Apache-2.0
// From mh_tensor to the views of C++, with the checks that their types make there.
#pragma once

#include <cstdint>
#include <span>

#include "multihead/masks.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"
#include "status.hpp"

namespace multihead::c {

template <class T>
inline constexpr mh_type kCType = MH_FLOAT32;
template <>
inline constexpr mh_type kCType<double> = MH_FLOAT64;
template <>
inline constexpr mh_type kCType<BFloat16> = MH_BFLOAT16;
template <>
inline constexpr mh_type kCType<Float16> = MH_FLOAT16;
template <>
inline constexpr mh_type kCType<std::int64_t> = MH_INT64;
template <>
inline constexpr mh_type kCType<std::uint8_t> = MH_BOOL;
template <>
inline constexpr mh_type kCType<std::uint32_t> = MH_UINT32;
template <>
inline constexpr mh_type kCType<std::int32_t> = MH_INT32;

// A tensor's role in a call, for sentences.
struct Role {
  const char* function;
  const char* name;
};

// "float32"; "42, which is none" for a number that is no type.
std::string type_word(mh_type type);
// Bytes of one element; 0 for a number that is no type.
std::size_t type_size(mh_type type) noexcept;

inline bool is_given(const mh_tensor* tensor) { return tensor && tensor->rank != 0; }

// Throws unless the tensor is of this type and rank, and its data is not NULL where it has elements and stands at an
// address that its elements may have.
void check_tensor(const Role& role, const mh_tensor& tensor, mh_type type, int32_t rank);
// The same for a tensor whose type is checked, of a rank from 1 to 4.
void check_broadcast(const Role& role, const mh_tensor& tensor);
// A tensor of this type and any rank from 1 to 4, contiguous, last axis fastest.
void check_contiguous(const Role& role, const mh_tensor& tensor, mh_type type);
// The elements of a contiguous list.
std::int64_t list_length(const Role& role, const mh_tensor& tensor, mh_type type);
[[noreturn]] void missing(const Role& role);
// The stride of an axis. Where there is no second element to step to it may be any number, even one that no address can
// be computed with, and is then 0.
inline std::int64_t stride_of(const mh_tensor& tensor, int axis) {
  constexpr std::int64_t kFar = std::int64_t{1} << 40;
  const std::int64_t stride = tensor.strides[axis];
  if (stride <= kFar && stride >= -kFar) return stride;
  bool steps = tensor.shape[axis] > 1;
  for (int other = 0; other < tensor.rank; ++other) steps = steps && tensor.shape[other] != 0;
  return steps ? stride : 0;
}

// A view of elements T, const or not; of a tensor that is not given one without extents.
template <class T, int Rank>
View<T, Rank> optional_view(const Role& role, const mh_tensor* tensor) {
  if (!is_given(tensor)) return {};
  check_tensor(role, *tensor, kCType<std::remove_const_t<T>>, Rank);
  typename View<T, Rank>::Extents extents, strides;
  for (int axis = 0; axis < Rank; ++axis) extents[axis] = tensor->shape[axis], strides[axis] = stride_of(*tensor, axis);
  return {static_cast<T*>(tensor->data), extents, strides};
}
template <class T, int Rank>
View<T, Rank> view(const Role& role, const mh_tensor* tensor) {
  if (!is_given(tensor)) missing(role);
  return optional_view<T, Rank>(role, tensor);
}

// A list, empty where the tensor is not given.
template <class T>
std::span<const T> list(const Role& role, const mh_tensor* tensor) {
  if (!is_given(tensor)) return {};
  const std::int64_t length = list_length(role, *tensor, kCType<T>);
  return {static_cast<const T*>(tensor->data), static_cast<std::size_t>(length)};
}
// One that has elements where it is given: C++ knows no other.
template <class T>
std::span<const T> filled_list(const Role& role, const mh_tensor* tensor) {
  const std::span<const T> found = list<T>(role, tensor);
  if (is_given(tensor) && found.empty())
    shape_mismatch(role.function, std::string(role.name) + " has no elements; it must have some, or not be given");
  return found;
}

Mask mask(const Role& role, const mh_tensor* tensor);
Bias bias(const Role& role, const mh_tensor* tensor);
RelativeBias relative_bias(const Role& role, const mh_tensor* tensor, bool bidirectional, std::int64_t max_distance);

// Calls body.template operator()<T>() with the type of a given tensor, or of what stands for one.
template <class Body>
auto with_type(const Role& role, mh_type type, const Body& body) {
  switch (type) {
    case MH_FLOAT32:
      return body.template operator()<float>();
    case MH_FLOAT64:
      return body.template operator()<double>();
    case MH_BFLOAT16:
      return body.template operator()<BFloat16>();
    case MH_FLOAT16:
      return body.template operator()<Float16>();
    default:
      bad_type(role.function, std::string(role.name) + " has type " + type_word(type) +
                                  "; it must be float32, float64, bfloat16 or float16");
  }
}
// The same for what is computed in float32 and float64 alone.
template <class Body>
auto with_sum_type(const Role& role, mh_type type, const Body& body) {
  switch (type) {
    case MH_FLOAT32:
      return body.template operator()<float>();
    case MH_FLOAT64:
      return body.template operator()<double>();
    default:
      bad_type(role.function,
               std::string(role.name) + " has type " + type_word(type) + "; it must be float32 or float64");
  }
}
// The type of a tensor that must be given.
mh_type type_of(const Role& role, const mh_tensor* tensor);
// The same as C++ names it; throws for what attention does not take.
Type element_type(const Role& role, mh_type type);

}  // namespace multihead::c

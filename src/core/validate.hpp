// SPDX-License-Identifier: Apache-2.0
// The one place where arguments are checked. Every check throws Error with a sentence that names function, argument,
// value and rule, before anything is computed or written.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "multihead/attention.hpp"
#include "multihead/error.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

constexpr std::int64_t kMaxHeadDim = 1024;
constexpr std::int64_t kMaxBuckets = 1 << 15;         // of a relative-position bias
constexpr std::int64_t kMaxBucketDistance = 1 << 20;  // its max_distance

// A view with its type forgotten.
struct Operand {
  const char* name;
  const void* data;
  std::size_t element_size;
  std::span<const std::int64_t> extents;
  std::span<const std::int64_t> strides;
};

template <class T, int Rank>
Operand operand(const char* name, const View<T, Rank>& view) {
  return {name, view.data(), sizeof(T), view.extents(), view.strides()};
}

// A view that was given has data or an extent, a span has elements; a null view with extents is an error that
// check_view finds.
template <class T, int Rank>
bool given(const View<T, Rank>& view) {
  return view.data() || view.extents() != typename View<T, Rank>::Extents{};
}
template <class T>
bool given(const std::span<T>& span) {
  return !span.empty();
}

[[noreturn]] void fail(ErrorCode code, const std::string& sentence);

// Extents not negative, data where there are elements, addresses that fit.
void check_view(const char* function, const Operand& view);
// The last axis is contiguous (stride 1 where it has more than one element).
void check_contiguous(const char* function, const Operand& view);
// No two elements share an address, so it can be written.
void check_writable(const char* function, const Operand& view);
// The two do not share memory. Views that interleave in one buffer are told apart only by their whole extent.
void check_apart(const char* function, const Operand& output, const Operand& input);
// "k", "has head_dim", 64 and "q has", 80 must be equal. Views, so that a check that holds allocates nothing.
void check_equal(const char* function, std::string_view subject, std::string_view property, std::int64_t value,
                 std::string_view other, std::int64_t other_value);
void check_between(const char* function, std::string_view what, std::int64_t value, std::int64_t low,
                   std::int64_t high);

// Bounds of packed sequences: they begin at 0, never fall, and end at a length, called `end`.
void check_boundaries(const char* function, const char* name, std::span<const std::int64_t> bounds, const char* end,
                      std::int64_t length);

// Whether anything in the options reads positions.
bool goes_by_position(const AttentionOptions& options);
// An alignment is named where positions are read and a sequence's queries and keys differ in number.
void check_named(const char* function, const AttentionOptions& options, std::int64_t queries, std::int64_t keys);

// The rules of attention() about extents and options, apart from the overlap of memory and the runs of segments.
void check_attention(const char* function, const AttentionShape& shape, const AttentionOptions& options);

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// The rules, and the sentences that state them.
#include "core/validate.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace multihead {

namespace {

struct ByteRange {
  std::int64_t begin;  // relative to data
  std::int64_t end;
};

bool has_elements(const Operand& view) {
  for (std::int64_t extent : view.extents)
    if (extent == 0) return false;
  return true;
}

// Whether the bytes between the first and the last element fit in 63 bits.
bool bytes_fit(const Operand& view) {
  const auto element = static_cast<std::int64_t>(view.element_size);
  ByteRange range{0, element};
  for (std::size_t axis = 0; axis < view.extents.size(); ++axis) {
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(view.extents[axis] - 1, view.strides[axis], &reach) ||
        __builtin_mul_overflow(reach, element, &reach))
      return false;
    std::int64_t& bound = reach < 0 ? range.begin : range.end;
    if (__builtin_add_overflow(bound, reach, &bound)) return false;
  }
  constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max() / 2;
  return range.begin > -kLargest && range.end < kLargest;
}

// Of a view that fits, as check_view() found: none where it has no elements.
ByteRange bytes_of(const Operand& view) {
  const auto element = static_cast<std::int64_t>(view.element_size);
  ByteRange range{0, element};
  for (std::size_t axis = 0; axis < view.extents.size(); ++axis) {
    if (view.extents[axis] == 0) return {0, 0};
    std::int64_t reach = 0;
    static_cast<void>(__builtin_mul_overflow(view.extents[axis] - 1, view.strides[axis], &reach));
    static_cast<void>(__builtin_mul_overflow(reach, element, &reach));
    std::int64_t& bound = reach < 0 ? range.begin : range.end;
    static_cast<void>(__builtin_add_overflow(bound, reach, &bound));
  }
  return range;
}

std::string text(std::int64_t value) { return std::to_string(value); }

}  // namespace

void fail(ErrorCode code, const std::string& sentence) { throw Error(code, sentence); }

void check_view(const char* function, const Operand& view) {
  const auto start = [&] { return std::string(function) + ": " + view.name; };
  for (std::size_t axis = 0; axis < view.extents.size(); ++axis)
    if (view.extents[axis] < 0)
      fail(ErrorCode::shape_mismatch, start() + " has extent " + text(view.extents[axis]) + " on axis " +
                                          text(static_cast<std::int64_t>(axis)) + "; it may not be negative");
  if (!has_elements(view)) return;
  if (!view.data) fail(ErrorCode::shape_mismatch, start() + " is null; it must point to its elements");
  if (!bytes_fit(view)) fail(ErrorCode::shape_mismatch, start() + " has extents and strides beyond the address space");
}

void check_contiguous(const char* function, const Operand& view) {
  if (view.extents.back() > 1 && view.strides.back() != 1)
    fail(ErrorCode::shape_mismatch, std::string(function) + ": " + view.name + " has stride " +
                                        text(view.strides.back()) + " on its last axis; it must be 1");
}

void check_writable(const char* function, const Operand& view) {
  if (!has_elements(view)) return;
  std::int64_t needed = 1;  // elements that the axes so far span, fastest first
  std::int64_t last = -1;   // the stride of the axis before
  for (;;) {
    std::int64_t stride = std::numeric_limits<std::int64_t>::max(), span = 0;
    bool found = false, twice = false;
    for (std::size_t axis = 0; axis < view.extents.size(); ++axis) {
      const std::int64_t candidate = std::abs(view.strides[axis]);
      if (view.extents[axis] <= 1 || candidate <= last || candidate > stride) continue;
      twice = found && candidate == stride;  // two axes of one stride always collide
      found = true;
      stride = candidate;
      span = candidate * (view.extents[axis] - 1);
    }
    if (!found) return;
    if (stride < needed || twice)
      fail(ErrorCode::shape_mismatch, std::string(function) + ": " + view.name +
                                          " has strides that put two elements in one place; it must be writable");
    needed += span;
    last = stride;
  }
}

void check_apart(const char* function, const Operand& output, const Operand& input) {
  const ByteRange out = bytes_of(output), in = bytes_of(input);
  const auto base = [](const Operand& view, std::int64_t offset) {
    return reinterpret_cast<std::uintptr_t>(view.data) + static_cast<std::uintptr_t>(offset);
  };
  const bool meet = base(output, out.begin) < base(input, in.end) && base(input, in.begin) < base(output, out.end);
  if (meet && out.begin < out.end && in.begin < in.end)
    fail(ErrorCode::shape_mismatch,
         std::string(function) + ": " + output.name + " overlaps " + input.name + "; they must be apart");
}

void check_equal(const char* function, std::string_view subject, std::string_view property, std::int64_t value,
                 std::string_view other, std::int64_t other_value) {
  if (value == other_value) return;
  const std::string words = std::string(subject) + " " + std::string(property) + " " + text(value);
  fail(ErrorCode::shape_mismatch, std::string(function) + ": " + words + ", " + std::string(other) + " " +
                                      text(other_value) + "; they must be equal");
}

void check_between(const char* function, std::string_view what, std::int64_t value, std::int64_t low,
                   std::int64_t high) {
  if (value < low || value > high)
    fail(ErrorCode::bad_option, std::string(function) + ": " + std::string(what) + " is " + text(value) +
                                    "; it must be " + text(low) + " to " + text(high));
}

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// The rules of packed sequences and of views, each with its sentence.
#include "models/call_checks.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <limits>

namespace multihead {

namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

}  // namespace

void fail(const char* function, ErrorCode code, const std::string& rule) {
  throw Error(code, std::string(function) + ": " + rule);
}

void check_starts(const char* function, std::span<const std::int64_t> starts, std::int64_t tokens) {
  if (starts.empty()) return;
  if (starts.front() != 0)
    fail(function, ErrorCode::bad_option, "cu_seqlens begins with " + text(starts.front()) + "; it must be 0");
  for (std::size_t i = 1; i < starts.size(); ++i)
    if (starts[i] < starts[i - 1])
      fail(function, ErrorCode::bad_option,
           "cu_seqlens has " + text(starts[i]) + " after " + text(starts[i - 1]) + "; it must not descend");
  if (starts.back() != tokens)
    fail(function, ErrorCode::shape_mismatch,
         "cu_seqlens ends with " + text(starts.back()) + ", there are " + text(tokens) + " tokens; they must be equal");
}

namespace {

[[noreturn]] void refuse(const char* function, const Written& view, const std::string& rule) {
  fail(function, ErrorCode::shape_mismatch, view.text() + " " + rule);
}

// The extents are those wanted; whether there are elements, which then are somewhere.
bool check_extents(const char* function, Written& view, std::span<const std::int64_t> wanted) {
  const auto fits = [](std::int64_t must, std::int64_t is) { return must == is || (must < 0 && is >= 0); };
  if (!std::equal(wanted.begin(), wanted.end(), view.extents.begin(), view.extents.end(), fits)) {
    std::string is, must;
    for (std::int64_t extent : view.extents) is += (is.empty() ? "" : ", ") + text(extent);
    for (std::int64_t extent : wanted) must += (must.empty() ? "" : ", ") + (extent < 0 ? "any" : text(extent));
    refuse(function, view, "has extents (" + is + "); they must be (" + must + ")");
  }
  view.begin = view.end = view.data;
  if (std::find(view.extents.begin(), view.extents.end(), 0) != view.extents.end()) return false;
  if (!view.data) refuse(function, view, "is null; it must point to its elements");
  return true;
}

// Adds the reach of an axis, in elements, to what lies between the first and the last element, and below data.
void add_reach(const char* function, const Written& view, std::size_t axis, std::int64_t& span, std::int64_t& below) {
  std::int64_t reach = 0;
  if (__builtin_mul_overflow(view.strides[axis], view.extents[axis] - 1, &reach) ||
      reach == std::numeric_limits<std::int64_t>::min() || __builtin_add_overflow(span, std::abs(reach), &span) ||
      span > (std::int64_t{1} << 59))
    refuse(function, view, "has extents and strides beyond the address space");
  below += std::min<std::int64_t>(reach, 0);
}

void set_ends(Written& view, std::int64_t span, std::int64_t below) {
  view.begin = view.data + below * view.size, view.end = view.begin + span * view.size;
}

}  // namespace

void check_written(const char* function, Written& view, std::span<const std::int64_t> wanted) {
  if (!check_extents(function, view, wanted)) return;
  // Axes by rising stride: each steps over all that the ones before it span.
  std::array<std::size_t, 4> axes{};
  std::size_t count = 0;
  for (std::size_t axis = 0; axis < view.extents.size(); ++axis) {
    if (view.extents[axis] <= 1) continue;
    std::size_t place = count++;
    for (; place > 0 && std::abs(view.strides[axes[place - 1]]) > std::abs(view.strides[axis]); --place)
      axes[place] = axes[place - 1];
    axes[place] = axis;
  }
  std::int64_t span = 1, below = 0;
  for (std::size_t axis : std::span(axes).first(count)) {
    if (std::abs(view.strides[axis]) < span) refuse(function, view, "has strides that put two elements in one place");
    add_reach(function, view, axis, span, below);
  }
  set_ends(view, span, below);
}

void check_read(const char* function, Written& view, std::span<const std::int64_t> wanted) {
  if (!check_extents(function, view, wanted)) return;
  std::int64_t span = 1, below = 0;
  for (std::size_t axis = 0; axis < view.extents.size(); ++axis) add_reach(function, view, axis, span, below);
  set_ends(view, span, below);
}

void check_rows(const char* function, const Written& view) {
  if (view.extents.back() > 1 && view.strides.back() != 1)
    fail(function, ErrorCode::shape_mismatch,
         view.text() + " has stride " + text(view.strides.back()) + " on its last axis; it must be 1");
}

void check_apart(const char* function, const Written& view, const char* other, const void* begin, const void* end) {
  const std::less<const void*> before;
  if (begin != end && view.begin != view.end && before(view.begin, end) && before(begin, view.end))
    fail(function, ErrorCode::shape_mismatch, view.text() + " overlaps " + other + "; they must be apart");
}

}  // namespace multihead

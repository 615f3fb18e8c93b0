// SPDX-License-Identifier: Apache-2.0
// What the calls of models check alike: sequences packed one after the other, views that are read and written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "multihead/error.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

[[noreturn]] void fail(const char* function, ErrorCode code, const std::string& rule);

// Positions of starts: 0 first, ascending, the last one all tokens; or none, for one sequence.
void check_starts(const char* function, std::span<const std::int64_t> starts, std::int64_t tokens);

// Calls body(first, last) for each sequence.
template <class Body>
void each_sequence(std::span<const std::int64_t> starts, std::int64_t tokens, const Body& body) {
  if (starts.empty()) return body(std::int64_t{0}, tokens);
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) body(starts[s], starts[s + 1]);
}

// What a call writes, or reads by strides, with its type forgotten: checked against the extents that it must have, and
// apart from the others.
struct Written {
  const char* name;
  const std::byte* data;
  std::int64_t size;  // of an element
  std::span<const std::int64_t> extents, strides;
  const std::byte *begin = nullptr, *end = nullptr;  // set by check_written and check_read
  std::int64_t layer = -1;                           // that asks for it; -1: the call does

  // As errors call it.
  std::string text() const { return layer < 0 ? name : "layer " + std::to_string(layer) + "'s " + name; }

  template <class E, int Rank>
  Written(const char* its_name, const View<E, Rank>& view)
      : name(its_name),
        data(reinterpret_cast<const std::byte*>(view.data())),
        size(sizeof(E)),
        extents(view.extents()),
        strides(view.strides()) {}
};

// Extents as wanted, -1 being any, no two elements in one place.
void check_written(const char* function, Written& view, std::span<const std::int64_t> wanted);
// Extents as wanted; elements may share a place.
void check_read(const char* function, Written& view, std::span<const std::int64_t> wanted);
// The last axis is contiguous.
void check_rows(const char* function, const Written& view);
void check_apart(const char* function, const Written& view, const char* other, const void* begin, const void* end);

}  // namespace multihead

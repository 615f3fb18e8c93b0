// SPDX-License-Identifier: Apache-2.0
// Structs that say their own size: read from a caller who knows fewer or more fields, and written for one.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "status.hpp"

namespace multihead::c {

constexpr std::size_t kLargestStruct = 4096;  // a larger struct_size was never set

// What a struct is called, the sizes it had in earlier releases, and its defaults.
template <class S>
struct StructOf;

template <class S>
struct Described {
  static constexpr std::array<std::size_t, 0> kEarlierSizes{};
  static void set(S&) {}  // the defaults that are not 0
};

template <class S>
S defaults() {
  S made{};
  made.struct_size = sizeof(S);
  StructOf<S>::set(made);
  return made;
}

// The size that a caller's struct has, checked: one of a release, or more.
template <class S>
std::size_t size_of_struct(const char* function, const S& given) {
  const std::size_t size = given.struct_size;
  const auto& earlier = StructOf<S>::kEarlierSizes;
  if ((size < sizeof(S) && std::find(earlier.begin(), earlier.end(), size) == earlier.end()) || size > kLargestStruct)
    bad_argument(function, std::string(StructOf<S>::kName) + " has struct_size " + std::to_string(size) +
                               "; it must be " + std::to_string(sizeof(S)) + ", as " + StructOf<S>::kName +
                               "_init sets it");
  return size;
}

// Refuses fields beyond those that this library knows, unless they are 0.
template <class S>
void check_surplus(const char* function, const S& given, std::size_t size) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&given);
  if (size > sizeof(S) && std::any_of(bytes + sizeof(S), bytes + size, [](unsigned char byte) { return byte != 0; }))
    bad_argument(function,
                 std::string(StructOf<S>::kName) + " has fields that this library does not know; they must be 0");
}

// The caller's struct, with the defaults where it is NULL or has not got a field.
template <class S>
S read_struct(const char* function, const S* given) {
  S read = defaults<S>();
  if (!given) return read;
  const std::size_t size = size_of_struct(function, *given);
  check_surplus(function, *given, size);
  std::memcpy(&read, given, std::min(size, sizeof(S)));
  return read;
}

// As much of the answer as the caller has room for.
template <class S>
void write_struct(const char* function, S answer, S* room) {
  const std::size_t size = size_of_struct(function, *room);
  answer.struct_size = room->struct_size;
  std::memcpy(room, &answer, std::min(size, sizeof(S)));
}

// mh_x_init: what of the defaults fits, zeros after them.
template <class S>
void init_struct(S* room, std::size_t size) noexcept {
  if (!room || size < sizeof(room->struct_size)) return;
  S made = defaults<S>();
  made.struct_size = static_cast<uint32_t>(std::min<std::size_t>(size, UINT32_MAX));
  std::memcpy(static_cast<void*>(room), &made, std::min(size, sizeof(S)));
  if (size > sizeof(S)) std::memset(reinterpret_cast<unsigned char*>(room) + sizeof(S), 0, size - sizeof(S));
}

// A text into a field of fixed size, cut off to fit.
template <std::size_t Size>
void write_text(char (&field)[Size], const std::string& text) {
  const std::size_t length = std::min(text.size(), Size - 1);
  std::memcpy(field, text.data(), length);
  std::memset(field + length, 0, Size - length);
}

}  // namespace multihead::c

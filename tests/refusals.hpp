// SPDX-License-Identifier: Apache-2.0
// Calls that must be refused: one rule a case, checked for its code, its sentence, and that nothing was written.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "multihead/multihead.hpp"

namespace multihead::testing {

using Words = std::vector<std::string>;

inline constexpr ErrorCode kShape = ErrorCode::shape_mismatch, kOption = ErrorCode::bad_option;
inline constexpr std::int64_t kHuge = std::int64_t{1} << 40, kRoom = 30000;
inline constexpr std::size_t kArena = 11 * kRoom;  // operands lie kRoom elements apart
inline std::byte one_byte[1];

// Where a view lies in the arena, element type apart. Contiguous until a case changes it.
struct Layout {
  std::vector<std::int64_t> extents, strides;
  std::int64_t place = 0;
  bool null = false;

  Layout() = default;
  Layout(int room, const std::vector<std::int64_t>& wanted)
      : extents(wanted), strides(wanted), place((room + 1) * kRoom) {
    std::uint64_t step = 1;  // may wrap
    for (std::size_t axis = extents.size(); axis-- > 0;) {
      strides[axis] = static_cast<std::int64_t>(step);
      step *= static_cast<std::uint64_t>(std::max<std::int64_t>(extents[axis], 1));
    }
  }
  std::int64_t count() const {
    return std::accumulate(extents.begin(), extents.end(), std::int64_t{1}, std::multiplies<>());
  }
  template <class T, int Rank>
  View<T, Rank> view(std::vector<std::remove_const_t<T>>& arena) const {
    std::array<std::int64_t, Rank> e{}, s{};
    std::copy(extents.begin(), extents.end(), e.begin());
    std::copy(strides.begin(), strides.end(), s.begin());
    return View<T, Rank>(null ? nullptr : arena.data() + place, e, s);
  }
};

// One rule: the change to a legal call that breaks it, and what the error must say.
template <class Call>
struct Case {
  std::string name;
  std::function<void(Call&)> change;
  ErrorCode code;
  Words words;

  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
};

// "weights.mean" to "mean".
inline std::string last_word(const std::string& name) { return name.substr(name.find('.') + 1); }

template <class Call>
using Operand = std::pair<const char*, Layout Call::*>;

inline const auto name_of = [](const auto& info) { return info.param.name; };

inline void expect_error(const std::string& function, ErrorCode code, const Words& words,
                         const std::function<void()>& door) {
  try {
    door();
    ADD_FAILURE() << function << " threw nothing";
  } catch (const Error& error) {
    const std::string sentence = error.what();
    EXPECT_EQ(error_name(error.code()), error_name(code)) << sentence;
    // A target is refused in its own name.
    const bool named = sentence.starts_with(function + ": ") || sentence.starts_with("target: ");
    EXPECT_TRUE(named) << sentence << "\ndoes not begin with: " << function;
    for (const std::string& word : words)
      EXPECT_NE(sentence.find(word), std::string::npos) << sentence << "\ndoes not say: " << word;
  }
}

// The call must fail and leave the arena as it was; the legal call works after it.
template <class T, class Call, class Door>
void expect_refused(const std::string& function, const Case<Call>& c, Call call, const Door& door) {
  const Call legal = call;
  c.change(call);
  std::vector<T> arena(kArena, T(0.5));
  const std::vector<T> before = arena;
  expect_error(function, c.code, c.words, [&] { door(call, arena); });
  EXPECT_EQ(std::memcmp(arena.data(), before.data(), kArena * sizeof(T)), 0) << "something was written";
  EXPECT_NO_THROW(door(legal, arena));
}

// A target that cannot run here: no machine has both.
inline Target missing_target() {
  const std::vector<Target> found = available_targets();
  return std::find(found.begin(), found.end(), Target::neon) == found.end() ? Target::neon : Target::avx2;
}

// One extent more than fits: words {"k has batch 3", "q has 2"}.
template <class Call>
Case<Call> longer(Layout Call::*operand, std::size_t axis, const std::string& subject, const std::string& other) {
  const std::int64_t fits = (Call().*operand).extents[axis];
  return {last_word(subject.substr(0, subject.find(' '))) + "_axis_" + std::to_string(axis),
          [=](Call& c) {
            Layout& layout = c.*operand;
            ++layout.extents[axis];
            layout.strides = Layout(0, layout.extents).strides;
          },
          kShape,
          {subject + " " + std::to_string(fits + 1), other + " " + std::to_string(fits), "must be equal"}};
}

// What no view may be.
template <class Call>
void add_view_rules(std::vector<Case<Call>>& cases, const std::vector<Operand<Call>>& operands, bool may_be_null) {
  for (const auto& [operand_name, operand] : operands) {
    const auto change = [member = operand](auto f) { return [=](Call& c) { f(c.*member); }; };
    const std::string name = operand_name, id = last_word(name);
    const Words far{name + " has extents and strides beyond the address space"};
    const auto negative = change([](Layout& x) { x.extents[1] = -1; });
    cases.push_back({id + "_negative", negative, kShape, {name + " has extent -1 on axis 1", "not be negative"}});
    cases.push_back({id + "_stride_far", change([](Layout& x) { x.strides[0] = kHuge << 22; }), kShape, far});
    cases.push_back({id + "_both_far", change([](Layout& x) { x.extents[1] = x.strides[1] = kHuge; }), kShape, far});
    const auto null = change([](Layout& x) { x.null = true; });
    if (!may_be_null) cases.push_back({id + "_null", null, kShape, {name + " is null", "must point"}});
  }
}

template <class Call>
void add_last_axis_rules(std::vector<Case<Call>>& cases, const std::vector<Operand<Call>>& operands) {
  for (const auto& [name, operand] : operands)
    for (std::int64_t stride : {0, 2, -1})
      cases.push_back({std::string(name) + "_last_axis_" + (stride < 0 ? "minus" : std::to_string(stride)),
                       [=, member = operand](Call& c) { (c.*member).strides.back() = stride; },
                       kShape,
                       {name + (" has stride " + std::to_string(stride)) + " on its last axis", "must be 1"}});
}

// The output shares one element with the other: its first with the other's last, or its last with the other's first.
template <class Call>
void add_overlap_rules(std::vector<Case<Call>>& cases, const Operand<Call>& output,
                       const std::vector<Operand<Call>>& others) {
  const auto& [name, operand] = output;
  const std::string id = last_word(name);
  for (const auto& [other_name, other] : others)
    for (bool at_its_end : {true, false})
      cases.push_back({id + (at_its_end ? "_on_the_end_of_" : "_on_the_start_of_") + last_word(other_name),
                       [=, a = operand, b = other](Call& c) {
                         Layout &from = c.*a, &to = c.*b;
                         from.place = to.place + (at_its_end ? to.count() - 1 : 1 - from.count());
                       },
                       kShape,
                       {name + std::string(" overlaps ") + other_name, "must be apart"}});
  for (std::int64_t stride : {0, 1})
    cases.push_back({id + "_on_itself_" + std::to_string(stride),
                     [=, member = operand](Call& c) { (c.*member).strides[0] = stride; },
                     kShape,
                     {std::string(name) + " has strides", "two elements in one place"}});
}

template <class Call>
void add_thread_rules(std::vector<Case<Call>>& cases) {
  for (int threads : {0, -1, 70000})
    cases.push_back({"threads_" + (threads < 0 ? "minus" : std::to_string(threads)),
                     [=](Call& c) { c.options.threads = threads; },
                     kOption,
                     {"threads is " + std::to_string(threads), "must be 1 to"}});
}

template <class Call>
Case<Call> foreign_target() {
  return {"target_foreign",
          [](Call& c) { c.options.target = missing_target(); },
          ErrorCode::unsupported,
          {std::string(target_name(missing_target())), "cannot run on this machine", "baseline"}};
}

template <class Call>
Case<Call> small_scratch() {
  return {"scratch_small",
          [](Call& c) { c.options.scratch = one_byte; },
          ErrorCode::out_of_memory,
          {"scratch has 1 bytes", "takes"}};
}

}  // namespace multihead::testing

// SPDX-License-Identifier: Apache-2.0
// Problems over every option as RapidCheck draws them.
#pragma once

#include <rapidcheck.h>

#include "part.hpp"

namespace multihead::testing {

template <class T>
std::int64_t between(T low, T high) {
  return *rc::gen::inRange<std::int64_t>(low, high + 1);
}

// A problem drawn by RapidCheck, which can take out one option after the other; `without` are never in.
template <class T>
Problem draw(std::initializer_list<Factor> without = {}) {
  Choice choice{};
  for (int factor = 0; factor < kFactors; ++factor)
    choice[static_cast<std::size_t>(factor)] =
        static_cast<int>(between<std::int64_t>(0, static_cast<std::int64_t>(levels_of(factor).size()) - 1));
  for (Factor factor : without) choice[factor] = 0;
  for (Factor factor : {kBatch, kInputs}) choice[factor] = 0;
  choice[kQueries] = choice[kQueries] == 1 ? 0 : choice[kQueries];
  choice[kKeys] = choice[kKeys] == 1 ? 0 : choice[kKeys];
  Problem p = draw_problem(settled(choice, kTypeOf<T>), static_cast<std::uint64_t>(between(0, 1 << 30)), kTypeOf<T>);
  p.plain.target = *rc::gen::elementOf(available_targets());
  return p;
}

}  // namespace multihead::testing

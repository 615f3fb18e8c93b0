// SPDX-License-Identifier: Apache-2.0
// Every output of statistics, one at a time, at a place of a test's choice.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "multihead/statistics.hpp"

namespace multihead::testing {

struct PlacedExtents {
  std::int64_t batch, heads, q_len, kv_len, offsets, keys, classes, top, bin;
};

// Calls visit(name, put) for each of a distribution's outputs: put(to, place, longer, axis) makes it a view of its
// legal extents at place, one longer along axis where asked.
template <class T, class Visit>
void each_placed(const PlacedExtents& e, bool weighted, const Visit& visit) {
  const auto one = [&](const char* name, auto member, std::array<std::int64_t, 4> extents) {
    visit((weighted ? "statistics.norm_weighted." : "statistics.") + std::string(name),
          [=](RowStatistics<T>& to, void* place, int axis = -1) {
            auto& view = to.*member;
            using View = std::remove_reference_t<decltype(view)>;
            using Element = std::remove_pointer_t<decltype(view.data())>;
            constexpr std::size_t kRank = std::tuple_size_v<typename View::Extents>;
            typename View::Extents wanted{};
            for (std::size_t at = 0; at < kRank; ++at)
              wanted[at] = extents[at] + (static_cast<int>(at) == axis ? 1 : 0);
            view = View(static_cast<Element*>(place), wanted);
          });
  };
  using S = RowStatistics<T>;
  const std::array<std::int64_t, 4> rows{e.batch, e.heads, e.q_len, 0};
  const auto list = [&](std::int64_t count) { return std::array<std::int64_t, 4>{e.batch, e.heads, e.q_len, count}; };
  one("visible", &S::visible, rows), one("entropy", &S::entropy, rows), one("sum_squares", &S::sum_squares, rows);
  one("distance", &S::distance, rows), one("duplicate_mass", &S::duplicate_mass, rows);
  one("induction_mass", &S::induction_mass, rows);
  one("offset_mass", &S::offset_mass, list(e.offsets)), one("key_mass", &S::key_mass, list(e.keys));
  one("class_mass", &S::class_mass, list(e.classes)), one("top_keys", &S::top_keys, list(e.top));
  one("top_weights", &S::top_weights, list(e.top));
  one("received", &S::received, {e.batch, e.heads, e.kv_len, 0});
  one("map", &S::map, {e.batch, e.heads, map_cells(e.q_len, e.bin), map_cells(e.kv_len, e.bin)});
}

}  // namespace multihead::testing

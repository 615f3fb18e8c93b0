// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 and the rule that turns its words into dropped weights.
#include "multihead/dropout.hpp"

#include "core/dropout.hpp"

namespace multihead {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::uint64_t key) noexcept {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxKey0, k1 += kPhiloxKey1) {
    const std::uint64_t a = std::uint64_t{kPhiloxFactor0} * counter[0], b = std::uint64_t{kPhiloxFactor1} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(a)};
  }
  return counter;
}

bool is_dropped(const Dropout& dropout, std::int64_t bh, std::int64_t i, std::int64_t j) noexcept {
  const auto words = philox4x32({static_cast<std::uint32_t>(j >> 2), static_cast<std::uint32_t>(i),
                                 static_cast<std::uint32_t>(bh), dropout.stream},
                                dropout.seed);
  return words[static_cast<std::size_t>(j & 3)] < drop_bound(dropout.probability);
}

}  // namespace multihead

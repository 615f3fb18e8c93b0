// SPDX-License-Identifier: Apache-2.0
// What the generator of dropout is made of, for those who draw many words at once.
#pragma once

#include <cstdint>

namespace multihead {

// Salmon et al. 2011, table 2.
constexpr int kPhiloxRounds = 10;
constexpr std::uint32_t kPhiloxFactor0 = 0xD2511F53, kPhiloxFactor1 = 0xCD9E8D57;
constexpr std::uint32_t kPhiloxKey0 = 0x9E3779B9, kPhiloxKey1 = 0xBB67AE85;

// A word below this is dropped: probability * 2^32, rounded down. probability is below 1, so it fits.
constexpr std::uint32_t drop_bound(double probability) noexcept {
  return static_cast<std::uint32_t>(probability * 0x1p32);
}

}  // namespace multihead

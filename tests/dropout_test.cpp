// SPDX-License-Identifier: Apache-2.0
// The generator of dropout gives the published words, and drops as often as it says.
#include "multihead/dropout.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace multihead {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The known answers that Random123 ships with philox4x32-10 (kat_vectors).
TEST(Dropout, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, ~std::uint64_t{0}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Dropout, DropsAsOftenAsItSays) {
  for (const double probability : {0.01, 0.1, 0.5, 0.9}) {
    const Dropout dropout{probability, 7, 3};
    const std::int64_t rows = 200, keys = 301;
    std::int64_t dropped = 0;
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < keys; ++j) dropped += is_dropped(dropout, 5, i, j);
    const double count = static_cast<double>(rows * keys),
                 deviation = std::sqrt(count * probability * (1 - probability));
    EXPECT_NEAR(static_cast<double>(dropped), count * probability, 4 * deviation) << probability;
  }
}

TEST(Dropout, ProbabilityZeroDropsNothing) {
  for (std::int64_t j = 0; j < 1000; ++j) EXPECT_FALSE(is_dropped({}, 0, 0, j));
}

}  // namespace
}  // namespace multihead

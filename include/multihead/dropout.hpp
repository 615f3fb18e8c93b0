// SPDX-License-Identifier: Apache-2.0
// Dropout that can be replayed: whether a weight is dropped is a function of where it stands, not of when it is asked.
#pragma once

#include <array>
#include <cstdint>

namespace multihead {

// Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): four words from a counter and a key. The same on every machine.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::uint64_t key) noexcept;

// Dropout of attention weights (Srivastava et al. 2014): the weight of query i for key j in head h of batch entry b,
// all counted in the tensors as they are passed, becomes 0 with this probability and 1 / (1 - probability) times itself
// otherwise. It is dropped where word j % 4 of philox4x32({j / 4, i, b * heads + h, stream}, seed) is below
// probability * 2^32. Nothing is stored; the backward pass draws the same words again.
struct Dropout {
  double probability = 0;    // 0 to below 1; 0: none
  std::uint64_t seed = 0;    // another one each step of a training
  std::uint32_t stream = 0;  // tells apart calls that share a seed, such as the layers of a model
};

// Whether that weight is dropped; bh is b * heads + h.
bool is_dropped(const Dropout& dropout, std::int64_t bh, std::int64_t i, std::int64_t j) noexcept;

}  // namespace multihead

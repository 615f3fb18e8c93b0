// SPDX-License-Identifier: Apache-2.0
// Numbers for initialisation and data: Philox's words, and what is made of them.
#include <bit>
#include <cmath>

#include "multihead/optimizer.hpp"
#include "train/plain_math.hpp"

namespace multihead {

std::uint32_t Random::word() noexcept {
  const std::uint64_t n = drawn_ / 4;
  if (drawn_ % 4 == 0)
    words_ = philox4x32({static_cast<std::uint32_t>(n), stream_, static_cast<std::uint32_t>(n >> 32), 0}, seed_);
  return words_[static_cast<std::size_t>(drawn_++ % 4)];
}

double Random::uniform() noexcept { return word() * 0x1p-32; }

// The bits that the largest number has, drawn again while they are too much.
std::int64_t Random::below(std::int64_t count) noexcept {
  const auto last = static_cast<std::uint64_t>(count) - 1;
  const std::uint64_t mask = last == 0 ? 0 : ~std::uint64_t{0} >> std::countl_zero(last);
  while (mask != 0) {
    std::uint64_t drawn = word();
    if (mask >> 32 != 0) drawn |= std::uint64_t{word()} << 32;
    if ((drawn & mask) <= last) return static_cast<std::int64_t>(drawn & mask);
  }
  return 0;
}

// Of the pair that Box and Muller make of two words, the first.
double Random::normal() noexcept {
  const double radius = std::sqrt(-2 * plain_log((word() + 1.0) * 0x1p-32));
  return radius * plain_cosine(uniform());
}

template <class T>
void fill_normal(Matrix<T>& values, double deviation, Random& random) {
  const std::size_t count = values.values().size();
  for (std::size_t i = 0; i < count; ++i) values.data()[i] = static_cast<T>(deviation * random.normal());
}

template <class T>
void fill_uniform(Matrix<T>& values, double bound, Random& random) {
  const std::size_t count = values.values().size();
  for (std::size_t i = 0; i < count; ++i) values.data()[i] = static_cast<T>(bound * (2 * random.uniform() - 1));
}

template void fill_normal(Matrix<float>&, double, Random&);
template void fill_normal(Matrix<double>&, double, Random&);
template void fill_uniform(Matrix<float>&, double, Random&);
template void fill_uniform(Matrix<double>&, double, Random&);

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// Random attention problems: sizes, masks and a seed for the numbers.
#include "problem.hpp"

#include <algorithm>
#include <array>

#include "print.hpp"

namespace multihead::cli {

namespace {

// Multiplications of one problem, so that the reference stays quick.
constexpr std::int64_t kWork = 3'000'000;
constexpr std::array<std::int64_t, 23> kLengths{0,  1,  2,  3,  5,  7,  8,   15,  16,  17,  31, 33,
                                                47, 49, 63, 64, 65, 97, 127, 128, 129, 200, 300};
constexpr std::array<std::int64_t, 18> kWidths{1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 80, 96, 128, 200};

void shrink(AttentionShape& shape) {
  const auto work = [&] {
    return shape.batch * shape.heads * shape.q_len * shape.kv_len * (shape.head_dim + shape.value_dim);
  };
  while (work() > kWork && shape.batch > 1) --shape.batch;
  while (work() > kWork && shape.q_len > 1) shape.q_len /= 2;
}

Causal random_causal(Random& random, AttentionShape& shape) {
  switch (random.between(0, 5)) {
    case 0:
      shape.q_len = shape.kv_len = std::min(shape.q_len, shape.kv_len);
      return true;
    case 1:
      return Causal::top_left();
    case 2:
      return Causal::bottom_right();
    case 3:
      return Causal::at(random.between(-shape.q_len, shape.kv_len));
    default:
      return {};
  }
}

}  // namespace

std::string Problem::text() const {
  constexpr std::array kNames{"none", "square", "top_left", "bottom_right"};
  std::string text;
  for (const auto& [name, value] :
       {std::pair{"batch ", shape.batch}, std::pair{", heads ", shape.heads}, std::pair{", kv_heads ", shape.kv_heads},
        std::pair{", q_len ", shape.q_len}, std::pair{", kv_len ", shape.kv_len},
        std::pair{", head_dim ", shape.head_dim}, std::pair{", value_dim ", shape.value_dim}})
    text += name + std::to_string(value);
  text += ", causal " + (causal.kind() == Causal::Kind::offset ? std::to_string(causal.query_offset())
                                                               : kNames[static_cast<std::size_t>(causal.kind())]);
  if (!lengths.empty()) text += ", lengths " + shape_text(lengths);
  if (scale) text += ", scale " + fixed(*scale, 3);
  return text;
}

Problem random_problem(std::uint64_t seed, int index) {
  std::seed_seq mixed{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                      static_cast<std::uint32_t>(index)};
  std::mt19937_64 seeds(mixed);
  Problem problem;
  problem.seed = seeds();
  Random random(seeds());
  AttentionShape& shape = problem.shape;
  shape.batch = random.between(1, 3);
  shape.kv_heads = random.between(1, 3);
  shape.heads = shape.kv_heads * random.between(1, 3);
  shape.q_len = random.of(kLengths);
  shape.kv_len = random.of(kLengths);
  shape.head_dim = random.of(kWidths);
  shape.value_dim = random.of(kWidths);
  shrink(shape);
  problem.causal = random_causal(random, shape);
  if (random.chance(0.4))
    for (std::int64_t b = 0; b < shape.batch; ++b) problem.lengths.push_back(random.between(0, shape.kv_len));
  if (random.chance(0.2)) problem.scale = 0.3 * random.normal();
  return problem;
}

}  // namespace multihead::cli

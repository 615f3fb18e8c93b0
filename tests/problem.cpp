// SPDX-License-Identifier: Apache-2.0
// How a random problem is drawn.
#include "problem.hpp"

namespace multihead::testing {

namespace {

std::int64_t draw_length(Random& random) {
  const int large = quick_share() ? 10 : 25;
  return random.chance(large) ? random.pick<std::int64_t>({127, 128, 129, 150, 191, 239, 255, 257})
                              : random.pick<std::int64_t>({1, 2, 3, 5, 7, 15, 16, 17, 31, 33, 47, 48, 49, 64, 97});
}

std::int64_t draw_width(Random& random) {
  return random.chance(70) ? random.pick<std::int64_t>({1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33})
                           : random.pick<std::int64_t>({48, 63, 64, 65, 80, 96, 128});
}

void draw_causal(Random& random, Problem& p) {
  const AttentionShape& s = p.shape;
  switch (random.between(0, 5)) {
    case 0:
      p.tags.insert("no mask");
      break;
    case 1:
      p.shape.q_len = s.kv_len;
      p.options.causal = true;
      p.tags.insert("causal square");
      break;
    case 2:
      p.options.causal = Causal::top_left(), p.tags.insert("causal top_left");
      break;
    case 3:
      p.options.causal = Causal::bottom_right(), p.tags.insert("causal bottom_right");
      break;
    case 4:
      p.options.causal = Causal::at(random.between(0, s.kv_len)), p.tags.insert("causal offset");
      break;
    default:
      p.options.causal = Causal::at(-random.between(1, std::max<std::int64_t>(s.q_len, 1)));
      p.tags.insert("causal negative offset");
  }
}

void draw_extents(Random& random, Problem& p) {
  p.shape.batch = random.between(1, 3);
  p.shape.kv_heads = random.between(1, 3);
  const std::int64_t group = random.pick<std::int64_t>({1, 1, 2, 4});
  p.shape.heads = p.shape.kv_heads * group;
  p.tags.insert(group == 1 ? "equal heads" : p.shape.kv_heads == 1 ? "one kv head" : "grouped heads");
  p.shape.q_len = random.chance(20) ? 1 : draw_length(random);
  p.shape.kv_len = draw_length(random);
  p.shape.head_dim = draw_width(random);
  p.shape.value_dim = random.chance(50) ? p.shape.head_dim : draw_width(random);
  if (p.shape.q_len == 1) p.tags.insert("one query");
  if (p.shape.value_dim != p.shape.head_dim) p.tags.insert("value_dim unlike head_dim");
  const int special = static_cast<int>(random.between(1, 100));
  if (special <= 6) p.shape.batch = 0, p.tags.insert("batch 0");
  if (special > 6 && special <= 12) p.shape.q_len = 0, p.tags.insert("q_len 0");
  if (special > 12 && special <= 18) p.shape.kv_len = 0, p.tags.insert("kv_len 0");
  if (p.shape.kv_len > 128) p.tags.insert("several key blocks");
}

void draw_inputs(Random& random, Problem& p) {
  if (random.chance(30)) p.heads_inside = true, p.tags.insert("heads inside");
  if (random.chance(30)) p.padding = random.between(1, 5), p.tags.insert("padded rows");
  p.input_scale = random.pick({1.0, 1.0, 1.0, 0.0, 10.0, 100.0});
  if (p.input_scale == 0) p.tags.insert("inputs all 0");
  if (p.input_scale == 10) p.tags.insert("inputs of scale 10");
  if (p.input_scale == 100) p.tags.insert("inputs of scale 100");
}

}  // namespace

Problem draw_problem(std::uint64_t seed) {
  Random random(seed);
  Problem p;
  p.seed = seed;
  draw_extents(random, p);
  draw_causal(random, p);
  draw_inputs(random, p);
  if (random.chance(40)) {
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      p.lengths.push_back(random.chance(20) ? 0 : random.between(0, p.shape.kv_len));
    p.tags.insert("lengths");
  }
  if (random.chance(40)) {
    p.options.scale = random.pick({0.0, 0.01, 0.3, 1.0, -0.2});
    p.tags.insert(*p.options.scale < 0 ? "negative scale" : *p.options.scale == 0 ? "scale 0" : "scale");
  }
  if (random.chance(30)) p.options.threads = static_cast<int>(random.between(2, 5)), p.tags.insert("threads");
  return p;
}

std::set<std::string> all_tags() {
  return {"no mask",
          "causal square",
          "causal top_left",
          "causal bottom_right",
          "causal offset",
          "equal heads",
          "one kv head",
          "grouped heads",
          "one query",
          "value_dim unlike head_dim",
          "batch 0",
          "q_len 0",
          "kv_len 0",
          "several key blocks",
          "causal negative offset",
          "heads inside",
          "padded rows",
          "inputs of scale 10",
          "inputs of scale 100",
          "inputs all 0",
          "lengths",
          "negative scale",
          "scale 0",
          "scale",
          "threads"};
}

}  // namespace multihead::testing

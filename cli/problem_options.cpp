// SPDX-License-Identifier: Apache-2.0
// How the options of a random problem are drawn.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "problem.hpp"

namespace multihead::cli {

namespace {

using Counts = std::vector<std::int64_t>;

// total in parts, some of them empty.
Counts parts_of(Random& random, std::int64_t total, std::int64_t parts) {
  Counts cuts{0, total};
  for (std::int64_t part = 1; part < parts; ++part) cuts.push_back(random.between(0, total));
  std::sort(cuts.begin(), cuts.end());
  std::adjacent_difference(cuts.begin(), cuts.end(), cuts.begin());
  cuts.erase(cuts.begin());
  return cuts;
}

template <class T>
void store_as(Spread& spread) {
  spread.stored.resize(spread.values.size() * sizeof(T));
  std::byte* place = spread.stored.data();
  for (double& value : spread.values) {
    const T element(static_cast<Sum<T>>(value));
    std::memcpy(place, &element, sizeof(T));
    value = static_cast<double>(static_cast<Sum<T>>(element));
    place += sizeof(T);
  }
}

void store(Random& random, Type sums, Spread& spread) {
  const Type widest = sums == Type::float64 ? Type::float64 : Type::float32;
  spread.type = random.of(std::array{widest, Type::float32, Type::bfloat16, Type::float16});
  if (spread.type == Type::float32) store_as<float>(spread);
  if (spread.type == Type::float64) store_as<double>(spread);
  if (spread.type == Type::bfloat16) store_as<BFloat16>(spread);
  if (spread.type == Type::float16) store_as<Float16>(spread);
}

// Zeros for some of the axes, with gaps between and the two last axes in any order.
Spread draw_spread(Random& random, const AttentionShape& shape) {
  const std::array<std::int64_t, 4> full{shape.batch, shape.heads, shape.q_len, shape.kv_len};
  Spread spread;
  spread.rank = static_cast<int>(random.between(1, 4));
  std::array<std::size_t, 4> fastest_first{3, 2, 1, 0};
  if (random.chance(0.2)) std::swap(fastest_first[0], fastest_first[1]);
  std::int64_t step = random.between(1, 5) == 1 ? 2 : 1;
  for (const std::size_t axis : fastest_first) {
    if (axis < 4 - static_cast<std::size_t>(spread.rank)) continue;
    spread.extents[axis] = random.chance(0.25) ? 1 : full[axis];
    spread.strides[axis] = step;
    step = step * std::max<std::int64_t>(spread.extents[axis], 1) + random.between(0, 1);
  }
  spread.values.assign(static_cast<std::size_t>(step), 0);
  return spread;
}

// Any byte but 0 is true.
Spread draw_mask(Random& random, const AttentionShape& shape, double truths) {
  Spread mask = draw_spread(random, shape);
  for (double& value : mask.values) {
    value = random.chance(truths) ? static_cast<double>(random.between(1, 255)) : 0;
    mask.stored.push_back(static_cast<std::byte>(value));
  }
  return mask;
}

Spread draw_bias(Random& random, const AttentionShape& shape) {
  Spread bias = draw_spread(random, shape);
  const double hiding = random.chance(0.5) ? 0.15 : 0;
  for (double& value : bias.values)
    value = random.chance(hiding) ? -std::numeric_limits<double>::infinity() : 2 * random.normal();
  store(random, shape.type, bias);
  return bias;
}

void draw_relative(Random& random, Problem& problem) {
  problem.bidirectional = random.chance(0.5);
  const std::int64_t buckets = random.of(std::array<std::int64_t, 4>{4, 6, 16, 32});
  problem.max_distance = buckets * random.between(1, 4);
  const bool by_head = random.chance(0.5);  // each head's buckets stand together
  Spread& table = problem.table;
  table.rank = 2;
  table.extents = {1, 1, buckets, problem.shape.heads};
  table.strides = {0, 0, by_head ? 1 : problem.shape.heads, by_head ? buckets : 1};
  for (std::int64_t i = 0; i < buckets * problem.shape.heads; ++i) table.values.push_back(random.normal());
  store(random, problem.shape.type, table);
}

void draw_by_head(Random& random, double often, Problem& problem) {
  const bool alibi = random.chance(often), sinks = random.chance(often);
  for (std::int64_t h = 0; h < problem.shape.heads; ++h) {
    if (alibi) problem.alibi_slopes.push_back(std::ldexp(random.normal(), -static_cast<int>(random.between(0, 6))));
    if (sinks) problem.sinks.push_back(3 * random.normal());
  }
  if (random.chance(often)) draw_relative(random, problem);
}

// How queries and keys fall into runs: a batch entry, or with packing one of several in it.
enum class Packing { none, cu_seqlens, segments };

void draw_runs(Random& random, Packing packing, bool alike, Problem& problem) {
  const auto [q_len, kv_len] = std::pair{problem.shape.q_len, problem.shape.kv_len};
  for (std::int64_t b = 0; b < problem.shape.batch; ++b) {
    const std::int64_t count = packing == Packing::none ? 1 : random.between(1, 5);
    const Counts queries = parts_of(random, q_len, count);
    const Counts keys = alike ? queries : parts_of(random, kv_len, count);
    const bool backwards = packing == Packing::segments && random.chance(0.3);  // the keys, run by run
    std::int64_t q_begin = 0, k_begin = 0;
    for (std::size_t run = 0; run < queries.size(); ++run) {
      const std::int64_t k_end = k_begin + keys[run];
      problem.sequences.push_back({b, q_begin, queries[run], backwards ? kv_len - k_end : k_begin, keys[run], 0});
      q_begin += queries[run], k_begin = k_end;
    }
  }
  if (packing == Packing::cu_seqlens) {
    problem.cu_seqlens_q = problem.cu_seqlens_k = {0};
    for (const Sequence& run : problem.sequences) {
      problem.cu_seqlens_q.push_back(run.q_begin + run.q_len);
      problem.cu_seqlens_k.push_back(run.k_begin + run.k_len);
    }
  }
  if (packing != Packing::segments) return;
  problem.q_segments.resize(static_cast<std::size_t>(problem.shape.batch * q_len));
  problem.kv_segments.resize(static_cast<std::size_t>(problem.shape.batch * kv_len));
  std::int64_t id = random.between(-5, 5);
  for (const Sequence& run : problem.sequences) {
    std::fill_n(problem.q_segments.begin() + run.batch * q_len + run.q_begin, run.q_len, id);
    std::fill_n(problem.kv_segments.begin() + run.batch * kv_len + run.k_begin, run.k_len, id);
    id += random.between(1, 1000);
  }
}

Alignment draw_alignment(Random& random, const AttentionShape& shape) {
  switch (random.between(0, 3)) {
    case 0:
      return Alignment::top_left();
    case 1:
      return Alignment::bottom_right();
    case 2:
      return Alignment::at(random.between(-shape.q_len, shape.kv_len));
    default:
      return Alignment::at(std::span<const std::int64_t>());
  }
}

// What has a value for each sequence: a batch entry, or a run of cu_seqlens.
void draw_by_sequence(Random& random, double often, Packing packing, Problem& problem) {
  using Kind = Alignment::Kind;
  AttentionOptions& plain = problem.plain;
  const Kind kind = plain.alignment.kind();
  const bool by_run = packing == Packing::cu_seqlens;
  const bool cut = random.chance(often), prefixed = plain.causal && random.chance(often);
  const std::int64_t count = by_run ? std::ssize(problem.sequences) : problem.shape.batch;
  for (std::int64_t s = 0; s < count; ++s) {
    const std::int64_t keys = by_run ? problem.sequences[static_cast<std::size_t>(s)].k_len : problem.shape.kv_len;
    if (cut) problem.lengths.push_back(random.between(0, keys));
    if (prefixed) problem.prefixes.push_back(random.between(0, keys));
    if (kind == Kind::offsets) problem.offsets.push_back(random.between(-problem.shape.q_len, problem.shape.kv_len));
  }
  for (std::size_t run = 0; run < problem.sequences.size(); ++run) {
    Sequence& sequence = problem.sequences[run];
    const std::size_t s = by_run ? run : static_cast<std::size_t>(sequence.batch);
    const std::int64_t first = by_run ? 0 : sequence.k_begin;  // lengths count from here
    if (cut) sequence.k_len = std::clamp<std::int64_t>(problem.lengths[s] - first, 0, sequence.k_len);
    if (kind == Kind::bottom_right) sequence.offset = sequence.k_len - sequence.q_len;
    if (kind == Kind::offset) sequence.offset = plain.alignment.offset();
    if (kind == Kind::offsets) sequence.offset = problem.offsets[s];
  }
}

}  // namespace

void draw_options(Random& random, Problem& problem) {
  AttentionShape& shape = problem.shape;
  AttentionOptions& plain = problem.plain;
  const double often = 0.1 * static_cast<double>(random.between(0, 6));
  if (random.chance(0.2)) plain.scale = 0.3 * random.normal();
  if (random.chance(often)) plain.softcap = random.of(std::array{0.5, 5.0, 30.0});
  plain.causal = random.chance(0.5);
  if (random.chance(often)) plain.window.left = random.between(0, shape.kv_len);
  if (random.chance(often)) plain.window.right = random.between(0, shape.kv_len);
  if (random.chance(often)) plain.window.first = random.between(0, shape.kv_len);
  draw_by_head(random, often, problem);

  const bool by_position = plain.causal || plain.window.left >= 0 || plain.window.right >= 0 ||
                           !problem.alibi_slopes.empty() || problem.table.rank > 0;
  const bool unnamed = random.chance(0.3), alike = unnamed && by_position;
  if (alike) shape.q_len = shape.kv_len = std::min(shape.q_len, shape.kv_len);
  if (!unnamed) plain.alignment = draw_alignment(random, shape);

  const Packing packing =
      random.chance(often) ? random.of(std::array{Packing::cu_seqlens, Packing::segments}) : Packing::none;
  if (packing == Packing::cu_seqlens) shape.batch = 1;
  draw_runs(random, packing, alike, problem);
  draw_by_sequence(random, often, packing, problem);
  if (random.chance(often)) problem.keep_mask = draw_mask(random, shape, 0.8);
  if (random.chance(often)) problem.drop_mask = draw_mask(random, shape, 0.2);
  if (random.chance(often)) problem.bias = draw_bias(random, shape);
}

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// Random attention problems: their sizes, what attention() is given, and their description.
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

std::string alignment_text(const Problem& problem) {
  switch (problem.plain.alignment.kind()) {
    case Alignment::Kind::unnamed:
      return "";
    case Alignment::Kind::top_left:
      return ", top_left";
    case Alignment::Kind::bottom_right:
      return ", bottom_right";
    case Alignment::Kind::offset:
      return ", offset " + std::to_string(problem.plain.alignment.offset());
    case Alignment::Kind::offsets:
      return ", offsets " + shape_text(problem.offsets);
  }
  return "";
}

std::string spread_text(std::string name, const Spread& spread, bool typed) {
  if (spread.rank == 0) return "";
  if (typed) name.append(" ").append(type_name(spread.type));
  return name.insert(0, ", ").append(" ") +
         shape_text(std::span(spread.extents).last(static_cast<std::size_t>(spread.rank)));
}

}  // namespace

double Spread::at(const std::array<std::int64_t, 4>& place) const {
  std::int64_t offset = 0;
  for (std::size_t axis = 0; axis < 4; ++axis) offset += extents[axis] == 1 ? 0 : place[axis] * strides[axis];
  return values[static_cast<std::size_t>(offset)];
}

BroadcastView Spread::view() const {
  BroadcastView view;
  view.data = stored.data(), view.rank = rank;
  view.extents = extents, view.strides = strides;
  return view;
}

AttentionOptions Problem::options() const {
  AttentionOptions all = plain;
  if (!offsets.empty()) all.alignment = Alignment::at(std::span(offsets));
  all.prefixes = prefixes, all.lengths = lengths;
  all.cu_seqlens_q = cu_seqlens_q, all.cu_seqlens_k = cu_seqlens_k;
  if (!q_segments.empty()) all.q_segments = {q_segments.data(), {shape.batch, shape.q_len}};
  if (!kv_segments.empty()) all.kv_segments = {kv_segments.data(), {shape.batch, shape.kv_len}};
  all.keep_mask.view = keep_mask.view(), all.drop_mask.view = drop_mask.view();
  all.bias.view = bias.view(), all.bias.type = bias.type;
  all.alibi_slopes = alibi_slopes, all.sinks = sinks;
  if (table.rank == 0) return all;
  RelativeBias& relative = all.relative_bias;
  relative.data = table.stored.data(), relative.type = table.type;
  relative.extents = {table.extents[2], table.extents[3]}, relative.strides = {table.strides[2], table.strides[3]};
  relative.bidirectional = bidirectional, relative.max_distance = max_distance;
  return all;
}

std::string Problem::text() const {
  std::string text(type_name(shape.type));
  for (const auto& [name, value] :
       {std::pair{"batch ", shape.batch}, std::pair{"heads ", shape.heads}, std::pair{"kv_heads ", shape.kv_heads},
        std::pair{"q_len ", shape.q_len}, std::pair{"kv_len ", shape.kv_len}, std::pair{"head_dim ", shape.head_dim},
        std::pair{"value_dim ", shape.value_dim}})
    text += std::string(", ") + name + std::to_string(value);
  if (plain.scale) text += ", scale " + fixed(*plain.scale, 3);
  if (plain.softcap != 0) text += ", softcap " + fixed(plain.softcap, 3);
  if (plain.causal) text += ", causal";
  text += alignment_text(*this);
  const auto [left, right, first] = plain.window;
  if (left >= 0 || right >= 0) text += ", window (" + std::to_string(left) + ", " + std::to_string(right) + ")";
  if (first > 0) text += " and first " + std::to_string(first);
  for (const auto& [name, values] :
       {std::pair{"prefixes", &prefixes}, std::pair{"lengths", &lengths}, std::pair{"cu_seqlens_q", &cu_seqlens_q},
        std::pair{"cu_seqlens_k", &cu_seqlens_k}})
    if (!values->empty()) text += std::string(", ") + name + " " + shape_text(*values);
  if (!q_segments.empty() || !kv_segments.empty()) text += ", segments";
  text += spread_text("keep_mask", keep_mask, false) + spread_text("drop_mask", drop_mask, false);
  text += spread_text("bias", bias, true) + spread_text("relative_bias", table, true);
  if (table.rank)
    text += std::string(bidirectional ? " both ways" : " one way") + " to " + std::to_string(max_distance);
  if (!alibi_slopes.empty()) text += ", alibi_slopes";
  if (!sinks.empty()) text += ", sinks";
  return text;
}

Problem random_problem(std::uint64_t seed, int index, Type type) {
  std::seed_seq mixed{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                      static_cast<std::uint32_t>(index)};
  std::mt19937_64 seeds(mixed);
  Problem problem;
  problem.seed = seeds();
  Random random(seeds());
  AttentionShape& shape = problem.shape;
  shape.type = type;
  shape.batch = random.between(1, 3);
  shape.kv_heads = random.between(1, 3);
  shape.heads = shape.kv_heads * random.between(1, 3);
  shape.q_len = random.of(kLengths);
  shape.kv_len = random.of(kLengths);
  shape.head_dim = random.of(kWidths);
  shape.value_dim = random.of(kWidths);
  shrink(shape);
  draw_options(random, problem);
  return problem;
}

}  // namespace multihead::cli

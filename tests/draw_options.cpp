// SPDX-License-Identifier: Apache-2.0
// How the options of a random problem are drawn: sequences, positions, terms by head, masks and biases.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "draw.hpp"

namespace multihead::testing {

std::size_t Spread::place(std::array<std::int64_t, 4> at) const {
  std::int64_t place = first;
  for (std::size_t axis = 0; axis < 4; ++axis) place += extents[axis] == 1 ? 0 : at[axis] * strides[axis];
  return static_cast<std::size_t>(place);
}

void Spread::store_mask(Random& random) {
  stored.clear();
  for (double value : values) {
    const int truth = bytes ? random.pick({1, 2, 128, 255}) : 1;
    stored.push_back(static_cast<std::byte>(value == 0 ? 0 : truth));
  }
}

namespace {

template <class T>
void store_as(std::vector<double>& values, std::vector<std::byte>& stored) {
  stored.resize(values.size() * sizeof(T));
  for (std::size_t at = 0; at < values.size(); ++at) {
    const T element = static_cast<T>(values[at]);
    std::memcpy(stored.data() + at * sizeof(T), &element, sizeof(T));
    values[at] = static_cast<double>(widen(element));
  }
}

// The option that a view of the rank makes.
template <class Option, class T>
Option option_of(const Spread& spread) {
  const T* data = reinterpret_cast<const T*>(spread.stored.data()) + spread.first;
  const auto of_rank = [&]<int Rank>() {
    std::array<std::int64_t, Rank> extents{}, strides{};
    std::copy_n(spread.extents.end() - Rank, Rank, extents.begin());
    std::copy_n(spread.strides.end() - Rank, Rank, strides.begin());
    return Option(View<const T, Rank>(data, extents, strides));
  };
  if (spread.rank == 1) return of_rank.template operator()<1>();
  if (spread.rank == 2) return of_rank.template operator()<2>();
  if (spread.rank == 3) return of_rank.template operator()<3>();
  return of_rank.template operator()<4>();
}

}  // namespace

void Spread::store(Type as) {
  type = as;
  if (as == Type::float32) store_as<float>(values, stored);
  if (as == Type::float64) store_as<double>(values, stored);
  if (as == Type::bfloat16) store_as<BFloat16>(values, stored);
  if (as == Type::float16) store_as<Float16>(values, stored);
}

Mask Spread::mask() const { return bytes ? option_of<Mask, std::uint8_t>(*this) : option_of<Mask, bool>(*this); }

Bias Spread::bias() const {
  if (type == Type::float64) return option_of<Bias, double>(*this);
  if (type == Type::bfloat16) return option_of<Bias, BFloat16>(*this);
  if (type == Type::float16) return option_of<Bias, Float16>(*this);
  return option_of<Bias, float>(*this);
}

namespace {

using Counts = std::vector<std::int64_t>;

// total in parts, some of them empty; one takes most where total is large.
Counts parts_of(Random& random, std::int64_t total, std::int64_t parts) {
  Counts counts(static_cast<std::size_t>(parts), 0);
  const std::int64_t most = random.between(0, parts - 1);
  for (std::int64_t part = 0; part < parts; ++part)
    if (part != most && total > 0 && !random.chance(25)) {
      counts[static_cast<std::size_t>(part)] =
          random.between(0, std::min<std::int64_t>(total, total > 100 ? 9 : 1 + total / parts));
      total -= counts[static_cast<std::size_t>(part)];
    }
  counts[static_cast<std::size_t>(most)] = total;
  return counts;
}

Counts cumulative(const Counts& counts) {
  Counts sums{0};
  for (std::int64_t count : counts) sums.push_back(sums.back() + count);
  return sums;
}

// Runs of ids in an order of their own, one run an id.
void append_runs(Random& random, const Counts& ids, const Counts& counts, bool shuffled, Counts& to) {
  std::vector<std::size_t> order(ids.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t at = order.size(); shuffled && at > 1; --at)
    std::swap(order[at - 1], order[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(at) - 1))]);
  for (std::size_t run : order) to.insert(to.end(), static_cast<std::size_t>(counts[run]), ids[run]);
}

void draw_segments(Random& random, bool alike, Problem& p) {
  for (std::int64_t b = 0; b < p.shape.batch; ++b) {
    Counts ids{random.between(-3, 3)};
    for (std::int64_t more = random.between(0, 4); more > 0; --more)
      ids.push_back(ids.back() + random.pick<std::int64_t>({1, 2, 1000000007, std::int64_t{1} << 40}));
    const auto runs = static_cast<std::int64_t>(ids.size());
    const Counts queries = parts_of(random, p.shape.q_len, runs);
    const Counts keys = alike ? queries : parts_of(random, p.shape.kv_len, runs);
    append_runs(random, ids, queries, !alike, p.q_segments);
    append_runs(random, ids, keys, !alike, p.kv_segments);
  }
}

void draw_alignment(Random& random, const Choice& c, const Counts& keys, Problem& p) {
  const std::int64_t q_len = p.shape.q_len, kv_len = p.shape.kv_len;
  if (c[kAlignmentOf] == 1) p.plain.alignment = Alignment::top_left();
  if (c[kAlignmentOf] == 2) p.plain.alignment = Alignment::bottom_right();
  if (c[kAlignmentOf] == 3) p.plain.alignment = Alignment::at(random.between(0, kv_len + 3));
  if (c[kAlignmentOf] == 4) p.plain.alignment = Alignment::at(-random.between(1, q_len + 2));
  if (c[kAlignmentOf] == 5) p.plain.alignment = Alignment::at(std::span<const std::int64_t>());
  if (c[kAlignmentOf] == 5)
    for (std::size_t s = 0; s < keys.size(); ++s) p.offsets.push_back(random.between(-q_len / 2, kv_len));
  if (c[kCausal]) p.plain.causal = true;
  if (c[kCausal] == 2)
    for (std::int64_t count : keys) p.prefixes.push_back(random.chance(20) ? 0 : random.between(0, count));
  const auto reach = [&] { return random.chance(20) ? 0 : random.between(0, std::max<std::int64_t>(kv_len, 1)); };
  const bool keeps_first = c[kWindow] >= 4;
  if (keeps_first || (c[kWindow] & 1)) p.plain.window.left = reach() / (keeps_first ? random.pick({1, 2, 8}) : 1);
  if (c[kWindow] == 5 || (c[kWindow] & 2)) p.plain.window.right = reach();
  if (keeps_first) p.plain.window.first = random.chance(30) ? random.pick({1, 4, 127, 128, 129}) : reach();
}

void draw_terms_by_head(Random& random, const Choice& c, Problem& p) {
  for (std::int64_t h = 0; h < p.shape.heads; ++h) {
    if (c[kAlibi])
      p.alibi_slopes.push_back(random.chance(70) ? std::ldexp(1.0, -static_cast<int>(h) - 1) : random.normal() / 4);
    if (c[kSinks]) p.sinks.push_back(random.normal() * random.pick({1, 1, 10}));
  }
  if (!c[kRelative]) return;
  Spread& table = p.table;
  p.bidirectional = c[kRelative] == 1;
  const std::int64_t buckets = random.pick<std::int64_t>({2, 4, 6, 16, 32}) * (p.bidirectional ? 2 : 1);
  p.max_distance = random.pick<std::int64_t>({1, 2, 10, 128}) * buckets;
  table.rank = 2, table.extents = {1, 1, buckets, p.shape.heads};
  table.strides = random.chance(50) ? std::array<std::int64_t, 4>{0, 0, p.shape.heads, 1}
                                    : std::array<std::int64_t, 4>{0, 0, 1, buckets};
  for (std::int64_t at = 0; at < buckets * p.shape.heads; ++at) table.values.push_back(random.normal());
  table.store(random.pick(
      {Type::float32, Type::bfloat16, Type::float16, p.shape.type == Type::float64 ? Type::float64 : Type::float32}));
}

}  // namespace

void draw_sequences(Random& random, const Choice& c, Problem& p) {
  const AttentionShape& s = p.shape;
  const bool alike = c[kAlignmentOf] == 0;
  Counts keys(static_cast<std::size_t>(s.batch), s.kv_len);
  if (c[kPacking] == 1) {
    const std::int64_t sequences = random.between(1, 5);
    const Counts queries = parts_of(random, s.q_len, sequences);
    keys = alike && s.q_len == s.kv_len ? queries : parts_of(random, s.kv_len, sequences);
    p.cu_seqlens_q = cumulative(queries), p.cu_seqlens_k = cumulative(keys);
  }
  if (c[kPacking] == 2) draw_segments(random, alike && s.q_len == s.kv_len, p);
  if (c[kLengths])
    for (std::int64_t count : keys) p.lengths.push_back(random.chance(15) ? 0 : random.between((count + 1) / 2, count));
  draw_alignment(random, c, keys, p);
  draw_terms_by_head(random, c, p);
}

namespace {

// Extents of the last `rank` axes, some of them 1, and strides: in order, apart, backwards or of repeated places.
void lay_out(Random& random, const Choice& c, const AttentionShape& s, Spread& spread) {
  spread.rank = 1 + c[kRank];
  const std::array<std::int64_t, 4> full{s.batch, s.heads, s.q_len, s.kv_len};
  const auto first_axis = static_cast<std::size_t>(4 - spread.rank);
  for (std::size_t axis = first_axis; axis < 4; ++axis) spread.extents[axis] = full[axis];
  if (c[kAxes])
    for (std::int64_t times = random.between(1, 2); times > 0; --times)
      spread.extents[static_cast<std::size_t>(random.between(4 - spread.rank, 3))] = 1;
  const bool gaps = c[kStrides] == 1;
  std::array<std::size_t, 4> order{3, 2, 1, 0};  // fastest first
  if (c[kStrides] && random.chance(50))
    std::swap(order[0], order[static_cast<std::size_t>(random.between(0, spread.rank - 1))]);
  std::int64_t step = gaps ? random.between(1, 3) : 1;
  for (std::size_t axis : order) {
    if (axis < first_axis) continue;
    const std::int64_t extent = std::max<std::int64_t>(spread.extents[axis], 1);
    if (c[kStrides] == 3 && random.chance(50)) continue;  // stride 0
    const bool backwards = c[kStrides] == 2 && random.chance(60);
    spread.strides[axis] = backwards ? -step : step;
    if (backwards) spread.first += (extent - 1) * step;
    step = step * extent + (gaps ? random.between(0, 4) : 0);
  }
  spread.values.assign(static_cast<std::size_t>(step), 0);
}

void draw_mask(Random& random, const Choice& c, int level, int percent, Spread& mask, const AttentionShape& s) {
  if (!level) return;
  lay_out(random, c, s, mask);
  mask.bytes = level == 2;
  for (double& value : mask.values) value = random.chance(percent) ? 1 : 0;
  mask.store_mask(random);
}

void hide_rows(Random& random, Spread& bias) {
  for (std::int64_t b = 0; b < bias.extents[0]; ++b)
    for (std::int64_t h = 0; h < bias.extents[1]; ++h)
      for (std::int64_t i = 0; i < bias.extents[2]; ++i) {
        if (!random.chance(30)) continue;
        for (std::int64_t j = 0; j < bias.extents[3]; ++j)
          bias.values[bias.place({b, h, i, j})] = -std::numeric_limits<double>::infinity();
      }
}

}  // namespace

void draw_spreads(Random& random, const Choice& c, Problem& p) {
  draw_mask(random, c, c[kKeep], random.pick({60, 80, 95}), p.keep_mask, p.shape);
  draw_mask(random, c, c[kDrop], random.pick({5, 20, 40}), p.drop_mask, p.shape);
  if (!c[kBias]) return;
  Spread& bias = p.bias;
  lay_out(random, c, p.shape, bias);
  for (double& value : bias.values) {
    value = random.normal() * 2;
    if (c[kBiasValues] == 1 && random.chance(15)) value = -std::numeric_limits<double>::infinity();
    if (c[kBiasValues] == 3 && random.chance(15)) value = c[kBias] == 3 ? -6e4 : random.pick({-1e4, -1e30});
  }
  if (c[kBiasValues] == 2) hide_rows(random, bias);
  const Type types[] = {Type::float32, Type::float32, Type::bfloat16, Type::float16, Type::float64};
  bias.store(types[c[kBias]]);
}

}  // namespace multihead::testing

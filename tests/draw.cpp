// SPDX-License-Identifier: Apache-2.0
// How a random problem is drawn: levels, tags, extents, and the plan over pairs.
#include "draw.hpp"

#include <algorithm>

namespace multihead::testing {

const std::vector<std::string>& levels_of(int factor) {
  static const std::array<std::vector<std::string>, kFactors> levels{{
      {"unnamed alignment", "top_left", "bottom_right", "offset", "negative offset", "offsets"},
      {"", "causal", "prefixes"},
      {"", "window left", "window right", "window both", "window left and first", "window both and first"},
      {"", "cu_seqlens", "segments"},
      {"", "lengths"},
      {"", "keep of bool", "keep of bytes"},
      {"", "drop of bool", "drop of bytes"},
      {"", "bias float32", "bias bfloat16", "bias float16", "bias float64"},
      {"", "bias hides keys", "bias hides rows", "bias very low"},
      {"rank 1", "rank 2", "rank 3", "rank 4"},
      {"", "mask gaps", "mask negative strides", "mask stride 0"},
      {"", "mask broadcasts"},
      {"", "alibi"},
      {"", "relative both", "relative one"},
      {"", "softcap"},
      {"", "sinks"},
      {"", "scale", "scale 0", "negative scale"},
      {"", "dropout"},
      {"equal heads", "one kv head", "grouped heads"},
      {"", "q_len 0", "one query", "several row blocks"},
      {"", "kv_len 0", "several key blocks"},
      {"", "batch 0"},
      {"", "heads inside"},
      {"", "padded rows"},
      {"", "inputs all 0", "inputs of scale 10", "inputs of scale 100"},
      {"", "threads"},
      {"", "value_dim unlike head_dim"},
  }};
  return levels[static_cast<std::size_t>(factor)];
}

namespace {

bool by_position(const Choice& c) { return c[kCausal] || c[kWindow] || c[kAlibi] || c[kRelative]; }
bool element_by_element(const Choice& c) { return c[kKeep] || c[kDrop] || c[kBias]; }

}  // namespace

Choice settled(Choice c, Type type) {
  if (type != Type::float64 && c[kBias] == 4) c[kBias] = 1;
  if (c[kPacking] == 1) c[kBatch] = 0;           // one batch entry
  if (c[kAlignmentOf] == 0 && by_position(c)) {  // as many queries as keys
    if (c[kQueries] == 1 || c[kKeys] == 1) c[kQueries] = c[kKeys] = 1;
    if (c[kQueries] == 2) c[kKeys] = 0;
    if (c[kKeys] == 2) c[kQueries] = 3;
  }
  return c;
}

Choice draw_choice(Random& random, Type type) {
  Choice c{};
  const int sparse = random.chance(20) ? 70 : 0;
  for (int factor = 0; factor < kFactors; ++factor) {
    const auto last = static_cast<std::int64_t>(levels_of(factor).size()) - 1;
    c[static_cast<std::size_t>(factor)] = random.chance(sparse) ? 0 : static_cast<int>(random.between(0, last));
  }
  return settled(c, type);
}

Tags tags_of(const Choice& c) {
  Tags tags;
  for (int factor = 0; factor < kFactors; ++factor) {
    if (factor == kAlignmentOf && !by_position(c)) continue;
    if ((factor == kRank || factor == kStrides || factor == kAxes) && !element_by_element(c)) continue;
    if (factor == kBiasValues && !c[kBias]) continue;
    tags.insert(levels_of(factor)[static_cast<std::size_t>(c[static_cast<std::size_t>(factor)])]);
  }
  tags.erase("");
  return tags;
}

Tags all_tags(Type type) {
  Tags tags;
  for (int factor = 0; factor < kFactors; ++factor) tags.insert(levels_of(factor).begin(), levels_of(factor).end());
  tags.erase("");
  if (type != Type::float64) tags.erase("bias float64");
  return tags;
}

bool may_meet(const std::string& a, const std::string& b) {
  for (int factor = 0; factor < kFactors; ++factor) {
    const auto& levels = levels_of(factor);
    const auto has = [&](const std::string& tag) {
      return std::find(levels.begin(), levels.end(), tag) != levels.end();
    };
    if (has(a) && has(b)) return false;
  }
  return Tags{a, b} != Tags{"batch 0", "cu_seqlens"};
}

namespace {

std::int64_t draw_width(Random& random) {
  return random.pick<std::int64_t>({1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 33, 64, 80});
}

void draw_lengths(Random& random, const Choice& c, AttentionShape& s) {
  const auto few = [&] { return random.pick<std::int64_t>({2, 3, 5, 7, 13, 15, 16, 17, 31, 33, 47, 48}); };
  const auto many = [&] { return random.pick<std::int64_t>({129, 131, 150, 191, 255, 256, 257}); };
  s.q_len = c[kQueries] == 1 ? 0 : c[kQueries] == 2 ? 1 : few();
  if (c[kQueries] == 3) s.q_len = random.pick<std::int64_t>({49, 50, 64, 96, 97, 113});
  s.kv_len = c[kKeys] == 1 ? 0 : c[kKeys] == 2 ? many() : random.chance(10) ? 1 : few() + random.pick({0, 0, 16});
  if (c[kAlignmentOf] == 0 && by_position(c)) (c[kKeys] == 2 ? s.q_len : s.kv_len) = c[kKeys] == 2 ? s.kv_len : s.q_len;
}

// Small enough for a judge in long double.
void draw_extents(Random& random, const Choice& c, Problem& p) {
  AttentionShape& s = p.shape;
  draw_lengths(random, c, s);
  const bool large = s.q_len * s.kv_len > 3000;
  s.batch = c[kBatch] == 1 ? 0 : c[kPacking] == 1 ? 1 : random.between(1, large ? 2 : 3);
  s.kv_heads = c[kHeads] == 1 ? 1 : random.between(c[kHeads] == 2 ? 2 : 1, large ? 2 : 3);
  s.heads = s.kv_heads * (c[kHeads] == 0 ? 1 : random.pick<std::int64_t>({2, 2, 3, 4}));
  if (large && c[kHeads]) s.heads = s.kv_heads * 2;
  constexpr std::int64_t kWork = 1500000;
  const std::int64_t rows = std::max<std::int64_t>(1, s.batch * s.heads * s.q_len * s.kv_len);
  const auto fitting = [&] { return std::max<std::int64_t>(1, std::min(draw_width(random), kWork / rows)); };
  s.head_dim = fitting();
  s.value_dim = c[kWidths] ? fitting() : s.head_dim;
  if (c[kWidths] && s.value_dim == s.head_dim) ++s.value_dim;
}

void draw_values(Random& random, const Choice& c, Problem& p) {
  p.heads_inside = c[kLayout] == 1;
  p.padding = c[kPadding] ? random.between(1, 5) : 0;
  p.input_scale = c[kInputs] == 0 ? 1 : c[kInputs] == 1 ? 0 : c[kInputs] == 2 ? 10 : 100;
  if (c[kScale] == 1) p.plain.scale = random.pick({0.01, 0.3, 1.0});
  if (c[kScale] == 2) p.plain.scale = 0;
  if (c[kScale] == 3) p.plain.scale = random.pick({-0.2, -1.0});
  if (c[kSoftcap]) p.plain.softcap = random.pick({0.5, 5.0, 30.0, 50.0});
  if (c[kDropout])
    p.plain.dropout = {random.pick({0.01, 0.1, 0.5, 0.9}), random.bits(), static_cast<std::uint32_t>(random.bits())};
  if (c[kThreads]) p.plain.threads = static_cast<int>(random.between(2, 5));
}

}  // namespace

AttentionOptions Problem::options() const {
  AttentionOptions all = plain;
  if (!offsets.empty()) all.alignment = Alignment::at(std::span(offsets));
  all.lengths = lengths, all.prefixes = prefixes;
  all.cu_seqlens_q = cu_seqlens_q, all.cu_seqlens_k = cu_seqlens_k;
  if (!q_segments.empty() || !kv_segments.empty()) {
    all.q_segments = {q_segments.data(), {shape.batch, shape.q_len}};
    all.kv_segments = {kv_segments.data(), {shape.batch, shape.kv_len}};
  }
  if (keep_mask.rank) all.keep_mask = keep_mask.mask();
  if (drop_mask.rank) all.drop_mask = drop_mask.mask();
  if (bias.rank) all.bias = bias.bias();
  all.alibi_slopes = alibi_slopes, all.sinks = sinks;
  if (table.rank) {
    const Bias view = table.bias();
    all.relative_bias.data = view.view.data, all.relative_bias.type = view.type;
    all.relative_bias.extents = {table.extents[2], table.extents[3]};
    all.relative_bias.strides = {table.strides[2], table.strides[3]};
    all.relative_bias.bidirectional = bidirectional, all.relative_bias.max_distance = max_distance;
  }
  return all;
}

std::string Problem::describe() const {
  std::string text = "batch " + std::to_string(shape.batch) + " heads " + std::to_string(shape.heads) + "/" +
                     std::to_string(shape.kv_heads) + " q_len " + std::to_string(shape.q_len) + " kv_len " +
                     std::to_string(shape.kv_len) + " head_dim " + std::to_string(shape.head_dim) + " value_dim " +
                     std::to_string(shape.value_dim) + " seed " + std::to_string(seed);
  for (const std::string& tag : tags) text += ", " + tag;
  return text;
}

Problem draw_problem(const Choice& choice, std::uint64_t seed, Type type) {
  Random random(seed);
  Problem p;
  p.shape.type = type;
  p.seed = seed;
  p.tags = tags_of(choice);
  draw_extents(random, choice, p);
  draw_values(random, choice, p);
  draw_sequences(random, choice, p);
  draw_spreads(random, choice, p);
  return p;
}

Problem draw_problem(std::uint64_t seed, Type type) {
  Random random(seed ^ 0x5EED);
  return draw_problem(draw_choice(random, type), seed, type);
}

Plan::Plan(Type type, int often) : type_(type), often_(often) {
  const Tags tags = all_tags(type);
  for (auto a = tags.begin(); a != tags.end(); ++a)
    for (auto b = std::next(a); b != tags.end(); ++b)
      if (may_meet(*a, *b)) met_[{*a, *b}] = 0;
  wanted_ = static_cast<int>(met_.size());
}

// The pairs that count as met: where nothing is computed, only those with the reason for it.
template <class Function>
void Plan::each_pair(const Tags& tags, const Function& function) {
  const auto hollow = [](const std::string& tag) { return tag == "batch 0" || tag == "q_len 0" || tag == "kv_len 0"; };
  const bool empty = std::any_of(tags.begin(), tags.end(), hollow);
  for (auto a = tags.begin(); a != tags.end(); ++a)
    for (auto b = std::next(a); b != tags.end(); ++b)
      if (!empty || hollow(*a) || hollow(*b)) function(met_.at({*a, *b}));
}

Problem Plan::next() {
  Random random(++seed_);
  Choice best{};
  for (int candidate = 0, most = -1; candidate < 12; ++candidate) {
    const Choice choice = draw_choice(random, type_);
    int gain = 0;
    each_pair(tags_of(choice), [&](int met) { gain += std::max(0, often_ - met); });
    if (gain > most) best = choice, most = gain;
  }
  each_pair(tags_of(best), [&](int& met) { wanted_ -= ++met == often_; });
  return draw_problem(best, seed_, type_);
}

std::string Plan::missing() const {
  std::string text;
  for (const auto& [pair, count] : met_)
    if (count < often_) text += pair.first + " with " + pair.second + ": " + std::to_string(count) + "\n";
  return text;
}

}  // namespace multihead::testing

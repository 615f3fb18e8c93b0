// SPDX-License-Identifier: Apache-2.0
// From products to weights, row by row, keys in lanes: scales, terms, hidden keys, 2^(score - maximum), sums.

// a where the row sees the key of a lane, else b.
MULTIHEAD_INLINE Vec<float> where_seen(const RowKeys& seen, int key, Vec<float> a, Vec<float> b) {
  using Lanes = Vec<float>;
  const Lanes number = Lanes::load(kKeyNumbers<float>.values + key);
  const auto within = [&](int begin, int end) {
    return Lanes::both(Lanes::splat(static_cast<float>(begin)) <= number,
                       number < Lanes::splat(static_cast<float>(end)));
  };
  const Lanes late = Lanes::select(within(seen.begin, seen.end), a, b);
  return Lanes::select(within(0, seen.first), a, late);
}

// Products of a row to scores: scales, terms, hidden keys; returns their maximum. whole: the row sees all of them.
MULTIHEAD_NOINLINE float score_row(const DecodeWalk& walk, int r, std::int64_t start, bool whole) {
  using Lanes = Vec<float>;
  const DecodeTask& task = walk.task;
  const DecodeRow& row = task.rows[r];
  float* const scores = walk.rows.scores + r * kKeyBlock;
  const bool scaled = task.cache.element == Element::int8 && !task.cache.by_channel;
  const Lanes lowest = Lanes::splat(kMinusInfinity<float>), scale = Lanes::splat(task.scale);
  const Lanes slope = Lanes::splat(row.slope), place = Lanes::splat(static_cast<float>(row.position - start));
  Lanes largest = lowest;
  for (int key = walk.begin; key < walk.end; key += Lanes::kLanes) {
    Lanes s = Lanes::load(scores + key);
    if (scaled) s = s * Lanes::load(walk.rows.k_scales + key);
    s = s * scale;
    if (task.cap != 0) s = tanh<float>(s) * Lanes::splat(task.cap);
    if (row.slope != 0)
      s = Lanes::fma(magnitude_of<float>(place - Lanes::load(kKeyNumbers<float>.values + key)), slope, s);
    if (!whole) s = where_seen(walk.seen[r], key, s, lowest);
    largest = Lanes::max(s, largest);
    s.store(scores + key);
  }
  float lanes[Lanes::kLanes], most = kMinusInfinity<float>;
  largest.store(lanes);
  for (float lane : lanes) most = std::max(most, lane);
  return most;
}

// Scores of a row to weights; returns their sum.
MULTIHEAD_NOINLINE float weigh_row(const DecodeWalk& walk, int r, float most) {
  using Lanes = Vec<float>;
  constexpr int kRegisters = kSumChains / Lanes::kLanes;               // that hold the chains
  constexpr int kTogether = std::min(4, kCacheBlock / Lanes::kLanes);  // a chunk has a multiple of as many
  static_assert(kTogether % kRegisters == 0);
  float* const scores = walk.rows.scores + r * kKeyBlock;
  const Lanes reference = Lanes::splat(most == kMinusInfinity<float> ? 0 : most);
  Lanes chains[kRegisters];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kRegisters; ++i) chains[i] = Lanes::splat(0);
  for (int key = walk.begin; key < walk.end; key += kTogether * Lanes::kLanes) {
    Lanes weights[kTogether];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) weights[i] = Lanes::load(scores + key + i * Lanes::kLanes) - reference;
    exp2_nonpositive<float>(weights);
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      weights[i].store(scores + key + i * Lanes::kLanes);
      chains[i % kRegisters] = chains[i % kRegisters] + weights[i];
    }
  }
  float sums[kSumChains];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kRegisters; ++i) chains[i].store(sums + i * Lanes::kLanes);
  for (int step = kSumChains / 2; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
  return sums[0];
}

// The weights of a row times the scales of the values.
MULTIHEAD_NOINLINE void scale_weights(const DecodeWalk& walk, int r) {
  using Lanes = Vec<float>;
  float* const weights = walk.rows.scores + r * kKeyBlock;
  for (int key = walk.begin; key < walk.end; key += Lanes::kLanes) {
    const Lanes scaled = Lanes::load(weights + key) * Lanes::load(walk.rows.v_scales + key);
    where_seen(walk.seen[r], key, scaled, Lanes::splat(0)).store(weights + key);
  }
}

template <class P>
void weigh_keys(const DecodeWalk& walk, std::int64_t start) {
  const CachedRows& cache = walk.task.cache;
  for (int r = 0; r < walk.task.count; ++r) {
    const float most = score_row(walk, r, start, walk.seen[r].whole(walk.begin, walk.end));
    walk.rows.block_max[r] = most;
    walk.rows.block_sum[r] = weigh_row(walk, r, most);
    if constexpr (P::kTogether == 2)
      walk.rows.block_divisor[r] =
          P::round_weights(walk.rows.scores + r * kKeyBlock, walk.begin, walk.end, walk.rows.words + r * kKeyBlock / 2);
    else
      walk.rows.block_divisor[r] = walk.rows.block_sum[r];
    if (cache.element == Element::int8 && !cache.by_channel) scale_weights(walk, r);
  }
}

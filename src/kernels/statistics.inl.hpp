// SPDX-License-Identifier: Apache-2.0
// Statistics of rows that are sums over a block's weights, how blocks are merged, and what is written at the end.
//
// With m the running maximum of the scores in units of log 2, l the sum of the softmax, and w = 2^(s - m):
//   T = sum w (s - m)    L = sum w over keys    W = sum w^2    F = sum w f, any other sum over keys
//   a block's own sums, with its maximum m_b, are merged by the factors a = 2^(m - m') and b = 2^(m_b - m') of the
//   output: T = a (T + (m - m') L) + b (T_b + (m_b - m') L_b)    L = a L + b L_b    W = a^2 W + b^2 W_b    F = a F + b
//   F_b entropy = ln l L / l - ln 2 T / l    sum of squares = W / l^2    mean distance = F / L    masses = F / l
// A sink is in l alone. s - m is added and never s, which would lose the digits of an entropy. Where m_b is far below
// m' the factor is 0, and the difference is cut off so that its product is.

// Of a class with more keys of a block than this all keys are gone over: four a step are faster than one by one.
constexpr int kManyMembers = 24;

template <class T>
constexpr T kFarBelow = -2000;  // below the exponents of both types: 2^kFarBelow is 0

// softmax(), bit for bit, with T and L as well.
template <class T>
MULTIHEAD_NOINLINE void softmax_with_statistics(const RowState<T>& rows, const StatisticsRows<T>& to, int lane,
                                                int begin, int end) {
  using Lanes = Vec<T>;
  constexpr int kTogether = kSoftmaxTogether;
  const Lanes zero = Lanes::splat(0), far = Lanes::splat(kFarBelow<T>);
  const Lanes reference = finite_or_zero<T>(Lanes::load(rows.block_max + lane));
  T* const scores = rows.scores + lane;
  const KeyRange keys = whole_rounds<T>(scores, begin, end, kSumChains);
  Lanes chains[kSumChains], spread_chains[kSumChains];
  MULTIHEAD_UNROLL
  for (int chain = 0; chain < kSumChains; chain += kTogether) {
    Lanes sums[kTogether], spreads[kTogether];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) sums[i] = spreads[i] = zero;
    for (auto key = static_cast<int>(keys.begin) + chain; key < keys.end; key += kSumChains) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        T* at = scores + (key + i) * kRowBlock;
        const Lanes below = Lanes::load(at) - reference;
        const Lanes weight = exp2_nonpositive<T>(below);
        weight.store(at);
        sums[i] = sums[i] + weight;
        // A weight of 0 comes with -inf, whose product would be NaN; max() keeps a NaN that stands on its right.
        spreads[i] = Lanes::fma(weight, Lanes::max(far, below), spreads[i]);
      }
    }
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) chains[chain + i] = sums[i], spread_chains[chain + i] = spreads[i];
  }

  const Lanes block_sum = join_chains<T>(chains);
  const BlockMerge<T> merge = merge_block<T>(rows, lane, block_sum);
  const Lanes keys_sum = Lanes::load(to.keys_sum + lane);
  const Lanes old_spread = Lanes::fma(Lanes::max(far, merge.old_below), keys_sum, Lanes::load(to.spread + lane));
  const Lanes block_spread = Lanes::fma(Lanes::max(far, merge.block_below), block_sum, join_chains<T>(spread_chains));
  Lanes::fma(old_spread, merge.old_factor, block_spread * merge.block_factor).store(to.spread + lane);
  Lanes::fma(keys_sum, merge.old_factor, merge.sum).store(to.keys_sum + lane);
}

// A sum over keys in chains by key mod 16, joined by the fixed tree: add(key, weight, chain) is a chain's next value.
// Weights are 0 from the keys' multiple of 16 below begin to that above end.
template <class T, class Add>
MULTIHEAD_INLINE Vec<T> sum_of_keys(const RowState<T>& rows, int lane, KeyRange block, const Add& add) {
  using Lanes = Vec<T>;
  constexpr int kTogether = 8;
  const int first = static_cast<int>(block.begin) / kSumChains * kSumChains, end = static_cast<int>(block.end);
  const T* const weights = rows.scores + lane;
  Lanes chains[kSumChains];
  MULTIHEAD_UNROLL
  for (int chain = 0; chain < kSumChains; chain += kTogether) {
    Lanes sums[kTogether];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) sums[i] = Lanes::splat(0);
    for (int key = first + chain; key < end; key += kSumChains) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        const Lanes weight = Lanes::load(weights + (key + i) * kRowBlock);
        sums[i] = add(key + i, weight, sums[i]);
      }
    }
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) chains[chain + i] = sums[i];
  }
  return join_chains<T>(chains);
}

// A block's sum into the running one, by the factors of the merge or their squares.
template <class T>
MULTIHEAD_INLINE void merge_sum(T* running, Vec<T> old_factor, Vec<T> block_factor, Vec<T> sum) {
  Vec<T>::fma(Vec<T>::load(running), old_factor, sum * block_factor).store(running);
}

template <class T>
MULTIHEAD_NOINLINE void add_squares(const RowState<T>& rows, const StatisticsRows<T>& to, int lane, KeyRange block) {
  using Lanes = Vec<T>;
  const Lanes sum = sum_of_keys<T>(rows, lane, block,
                                   [](int, Lanes weight, Lanes chain) { return Lanes::fma(weight, weight, chain); });
  const Lanes old_factor = Lanes::load(rows.old_factor + lane), block_factor = Lanes::load(rows.block_factor + lane);
  merge_sum<T>(to.squares + lane, old_factor * old_factor, block_factor * block_factor, sum);
}

// Numbers of keys, for what broadcasts them: a conversion each time would cost more than the rest.
template <class T>
struct KeyNumbers {
  T values[kKeyBlock];
  constexpr KeyNumbers() : values() {
    for (int key = 0; key < kKeyBlock; ++key) values[key] = static_cast<T>(key);
  }
};
template <class T>
constexpr KeyNumbers<T> kKeyNumbers{};

template <class T>
MULTIHEAD_NOINLINE void add_distances(const RowState<T>& rows, const StatisticsRows<T>& to, int lane, KeyRange block) {
  using Lanes = Vec<T>;
  const Lanes place = Lanes::load(rows.place + lane);
  const T* const numbers = kKeyNumbers<T>.values;
  const Lanes sum = sum_of_keys<T>(rows, lane, block, [&](int key, Lanes weight, Lanes chain) {
    return Lanes::fma(weight, magnitude_of<T>(place - Lanes::splat(numbers[key])), chain);
  });
  merge_sum<T>(to.distance + lane, Lanes::load(rows.old_factor + lane), Lanes::load(rows.block_factor + lane), sum);
}

// The weights of keys whose token, or with induction the token before, is the row's own, unless it stands at the row's
// own position. Most blocks hold no such position of the register's rows.
template <class T>
MULTIHEAD_NOINLINE void add_pattern(const RowState<T>& rows, const StatisticsRows<T>& to, int lane, KeyRange block,
                                    bool induction) {
  using Lanes = Vec<T>;
  const Lanes zero = Lanes::splat(0), token = Lanes::load(to.token + lane);
  const T shift = induction ? T(1) : T(0);
  const T* const tokens = to.tokens + (induction ? 0 : 1);
  const T* const numbers = kKeyNumbers<T>.values;
  const auto alike = [&](int key, Lanes weight) {
    return Lanes::select(token == Lanes::splat(tokens[key]), weight, zero);
  };
  Lanes sum;
  if (rows.place[lane] + shift < kKeyBlock && rows.place[lane + Lanes::kLanes - 1] + shift >= 0) {
    const Lanes own = Lanes::load(rows.place + lane) + Lanes::splat(shift);
    sum = sum_of_keys<T>(rows, lane, block, [&](int key, Lanes weight, Lanes chain) {
      return chain + Lanes::select(own == Lanes::splat(numbers[key]), zero, alike(key, weight));
    });
  } else {
    sum = sum_of_keys<T>(rows, lane, block,
                         [&](int key, Lanes weight, Lanes chain) { return chain + alike(key, weight); });
  }
  merge_sum<T>((induction ? to.induction : to.duplicate) + lane, Lanes::load(rows.old_factor + lane),
               Lanes::load(rows.block_factor + lane), sum);
}

// The weights of each class's keys, which are found by their bits; where a class has many, all keys are gone over. The
// bits of a sum are the same: what is added in between is 0.
template <class T>
MULTIHEAD_NOINLINE void add_classes(const RowState<T>& rows, const StatisticsRows<T>& to, int lane, KeyRange block) {
  using Lanes = Vec<T>;
  std::uint32_t inside[kMaskWords];
  range_words(block, inside);
  const Lanes old_factor = Lanes::load(rows.old_factor + lane), block_factor = Lanes::load(rows.block_factor + lane);
  const Lanes zero = Lanes::splat(0), one = Lanes::splat(1);
  for (std::int64_t c = 0; c < to.wanted->counts.classes; ++c) {
    const std::uint32_t* const words = to.class_words + c * kMaskWords;
    int members = 0;
    for (int word = 0; word < kMaskWords; ++word) members += std::popcount(words[word] & inside[word]);
    T* const running = to.classes + c * kRowBlock + lane;
    if (members == block.end - block.begin) {
      const Lanes sum =
          sum_of_keys<T>(rows, lane, block, [](int, Lanes weight, Lanes chain) { return chain + weight; });
      merge_sum<T>(running, old_factor, block_factor, sum);
      continue;
    }
    if (members > kManyMembers) {
      const T* const flags = to.class_flags + c * kFlagLines * kRowBlock;
      const Lanes sum = sum_of_keys<T>(rows, lane, block, [&](int key, Lanes weight, Lanes chain) {
        return chain + Lanes::select(one == Lanes::splat(flags[key]), weight, zero);
      });
      merge_sum<T>(running, old_factor, block_factor, sum);
      continue;
    }
    Lanes chains[kSumChains];
    for (Lanes& chain : chains) chain = zero;
    for (int word = 0; word < kMaskWords; ++word)
      for (std::uint32_t left = words[word] & inside[word]; left != 0; left &= left - 1) {
        const int key = 32 * word + std::countr_zero(left);
        Lanes& chain = chains[key % kSumChains];
        chain = chain + Lanes::load(rows.scores + key * kRowBlock + lane);
      }
    merge_sum<T>(running, old_factor, block_factor, join_chains<T>(chains));
  }
}

// softmax_block() with statistics. A register that sees nothing of the block adds nothing to them.
template <class T>
void statistics_block(const Walk<T>& walk, const StatisticsRows<T>& to, const Group& group) {
  const RowState<T>& rows = walk.rows;
  const StatisticsTask<T>& wanted = *to.wanted;
  for (int i = 0; i < group.count; ++i) {
    const int vec = group.first + i, lane = vec * Vec<T>::kLanes;
    int begin = walk.block_begin(vec, group.start), end = walk.block_end(vec, group.start);
    if (begin >= end) {
      begin = end = group.begin;
      softmax(rows, lane, begin, end);
    } else {
      const KeyRange block{begin, end};
      statistics_of_scores(walk, to, vec, group.start, block);
      if (wanted.entropy.data || wanted.distance.data)
        softmax_with_statistics(rows, to, lane, begin, end);
      else
        softmax(rows, lane, begin, end);
      if (wanted.sum_squares.data) add_squares(rows, to, lane, block);
      if (wanted.distance.data) add_distances(rows, to, lane, block);
      if (wanted.duplicate_mass.data) add_pattern(rows, to, lane, block, false);
      if (wanted.induction_mass.data) add_pattern(rows, to, lane, block, true);
      if (wanted.counts.classes > 0) add_classes(rows, to, lane, block);
    }
    T* weights = rows.scores + lane;
    for (int key = group.begin; key < begin; ++key) Vec<T>::splat(0).store(weights + key * kRowBlock);
    for (int key = end; key < group.end; ++key) Vec<T>::splat(0).store(weights + key * kRowBlock);
  }
}

// Before the first key.
template <class T>
void start_statistics(const Walk<T>& walk, const StatisticsRows<T>& to) {
  const StatisticsTask<T>& wanted = *to.wanted;
  const StatisticsCounts& counts = wanted.counts;
  std::fill(to.spread, to.token, T(0));
  std::fill_n(to.classes, counts.classes * kRowBlock, T(0));
  std::fill_n(to.offsets, (counts.offsets + counts.keys) * kRowBlock, kMinusInfinity<T>);
  std::fill_n(to.top_scores, counts.top * kRowBlock, kMinusInfinity<T>);
  std::fill_n(to.top_keys, counts.top * kRowBlock, key_code<T>(-1));
  for (int row = 0; wanted.q_tokens && row < kRowBlock; ++row)
    to.token[row] = static_cast<T>(wanted.q_tokens[std::min(row, walk.task.rows - 1) * wanted.q_tokens_stride]);
}

// What a block's statistics read beside its scores: places of rows, classes and tokens of keys.
template <class T>
void open_statistics(const Walk<T>& walk, const StatisticsRows<T>& to, std::int64_t start, KeyRange seen) {
  const StatisticsTask<T>& wanted = *to.wanted;
  for (int row = 0; row < kRowBlock; ++row) walk.rows.place[row] = static_cast<T>(wanted.position - start + row);
  const std::int64_t classes = wanted.counts.classes;
  std::fill_n(to.class_words, classes * kMaskWords, 0u);
  for (std::int64_t key = classes > 0 ? seen.begin : seen.end; key < seen.end; ++key)
    for (std::uint32_t left = wanted.key_classes[(start + key) * wanted.key_classes_stride]; left != 0;
         left &= left - 1) {
      const int c = std::countr_zero(left);
      if (c < classes) to.class_words[c * kMaskWords + key / 32] |= 1u << key % 32;
    }
  for (std::int64_t c = 0; c < classes; ++c) {
    const std::uint32_t* const words = to.class_words + c * kMaskWords;
    int members = 0;
    for (int word = 0; word < kMaskWords; ++word) members += std::popcount(words[word]);
    T* const flags = to.class_flags + c * kFlagLines * kRowBlock;
    for (int key = 0; members > kManyMembers && key < kKeyBlock; ++key)
      flags[key] = static_cast<T>(words[key / 32] >> key % 32 & 1);
  }
  for (std::int64_t at = 0; wanted.kv_tokens && at <= kKeyBlock; ++at) {
    const std::int64_t key = start + at - 1;
    const bool there = key >= 0 && key < walk.task.kv_len;
    to.tokens[at] = there ? static_cast<T>(wanted.kv_tokens[key * wanted.kv_tokens_stride]) : T(-1);
  }
}

// Sums and scores of one register to what is written.
template <class T>
MULTIHEAD_NOINLINE void settle_statistics(const RowState<T>& rows, const StatisticsRows<T>& to, int lane) {
  using Lanes = Vec<T>;
  const StatisticsCounts& counts = to.wanted->counts;
  const Lanes zero = Lanes::splat(0), undefined = Lanes::splat(std::numeric_limits<T>::quiet_NaN());
  const Lanes sum = Lanes::load(rows.sum + lane);
  const auto empty = Lanes::load(rows.found + lane) == zero;
  const auto line = [&](T* from, auto change) { change(Lanes::load(from + lane)).store(from + lane); };
  const Lanes keys_sum = Lanes::load(to.keys_sum + lane);
  line(to.spread, [&](Lanes x) {
    const Lanes of_scores = x / sum * Lanes::splat(static_cast<T>(-std::numbers::ln2));
    return Lanes::select(empty, undefined, Lanes::fma(log<T>(sum), keys_sum / sum, of_scores));
  });
  line(to.squares, [&](Lanes x) { return x / (sum * sum); });
  line(to.distance, [&](Lanes x) { return Lanes::select(empty, undefined, x / keys_sum); });
  const auto mass = [&](Lanes x) { return x / sum; };
  line(to.duplicate, mass);
  line(to.induction, mass);
  for (std::int64_t i = 0; i < counts.classes; ++i) line(to.classes + i * kRowBlock, mass);
  // As the weights on request are made of the same scores.
  const Lanes stored = Lanes::load(rows.max + lane);
  const Lanes max = unless_hidden(stored, stored, zero), share = Lanes::splat(1) / sum;
  const auto weight = [&](Lanes score) { return unless_hidden(score, exp2_nonpositive<T>(score - max) * share, zero); };
  for (std::int64_t i = 0; i < counts.offsets; ++i) line(to.offsets + i * kRowBlock, weight);
  for (std::int64_t i = 0; i < counts.keys; ++i) line(to.keys + i * kRowBlock, weight);
  for (std::int64_t i = 0; i < counts.top; ++i) line(to.top_scores + i * kRowBlock, weight);
}

// The keys of a row's range, but for its gap.
template <class T>
std::int64_t visible_keys(const AttentionTask<T>& task, int row) {
  const KeyRange& keys = task.visible[row];
  const KeyRange gap = task.terms.gap(row);
  return keys.end - keys.begin - std::max<std::int64_t>(std::min(keys.end, gap.end) - gap.begin, 0);
}

// The numbers of one row; of how many keys it sees its range tells where no mask is dense.
template <class T>
void write_statistics(const StatisticsRows<T>& to, int row, std::int64_t visible, bool dense) {
  const StatisticsTask<T>& wanted = *to.wanted;
  const auto single = [&](const RowsOutput<T>& out, const T* line) {
    if (out.data) out.at(row, 0) = line[row];
  };
  single(wanted.entropy, to.spread);
  single(wanted.sum_squares, to.squares);
  single(wanted.distance, to.distance);
  single(wanted.duplicate_mass, to.duplicate);
  single(wanted.induction_mass, to.induction);
  single(wanted.visible, to.visible);
  if (wanted.visible.data && !dense) wanted.visible.at(row, 0) = static_cast<T>(visible);
  for (std::int64_t i = 0; i < wanted.counts.offsets; ++i)
    wanted.offset_mass.at(row, i) = to.offsets[i * kRowBlock + row];
  for (std::int64_t i = 0; i < wanted.counts.keys; ++i) wanted.key_mass.at(row, i) = to.keys[i * kRowBlock + row];
  for (std::int64_t i = 0; i < wanted.counts.classes; ++i)
    wanted.class_mass.at(row, i) = to.classes[i * kRowBlock + row];
  for (std::int64_t i = 0; i < wanted.counts.top; ++i) {
    const std::int64_t key = key_of_code<T>(to.top_keys[i * kRowBlock + row]);
    if (wanted.top_keys.data) wanted.top_keys.at(row, i) = key < 0 ? -1 : wanted.k_begin + key;
    if (wanted.top_weights.data) wanted.top_weights.at(row, i) = to.top_scores[i * kRowBlock + row];
  }
}

// After finish(), which has settled sums and which rows have seen a key.
template <class T>
void finish_statistics(const Walk<T>& walk, const StatisticsRows<T>& to) {
  for (int vec = 0; vec < walk.vecs; ++vec) settle_statistics(walk.rows, to, vec * Vec<T>::kLanes);
  for (int row = 0; row < walk.task.rows; ++row)
    write_statistics(to, row, visible_keys(walk.task, row), walk.task.terms.dense());
}

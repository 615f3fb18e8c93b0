// SPDX-License-Identifier: Apache-2.0
// Statistics of rows that are taken from a block's scores, before the softmax: the scores at offsets and at chosen
// keys, the largest ones, and how many keys are seen.

// Lines of kRowBlock lanes beside a task's RowState: what is gathered of each row.
template <class T>
struct StatisticsRows {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

  const StatisticsTask<T>* wanted;
  // Running sums over keys, of a weight w = 2^(score - max), d = |position - key|:
  T* spread;                   // w x (score - max)
  T* keys_sum;                 // w: the sum of the softmax but for the sink
  T* squares;                  // w x w
  T* distance;                 // w x d
  T* visible;                  // 1 for each key seen; counted where masks are dense
  T* duplicate;                // w of the keys that the patterns pick
  T* induction;                //
  T* classes;                  // [classes]: w of the keys of the class
  T* token;                    // the row's
  T* tokens;                   // kKeyBlock + 1 numbers: of the block's keys, from the one before its first; -1: none
  std::uint32_t* class_words;  // [classes][kMaskWords]: bit k of word w is set where key 32 w + k is of the class
  T* class_flags;              // [classes][kKeyBlock], in whole lines: 1 of those keys; of classes with many of them
  T* offsets;                  // [offsets], [keys]: scores, -inf where none has passed
  T* keys;                     //
  T* top_scores;               // [top]: falling
  T* top_keys;                 // [top]: as key_code() has them

  explicit StatisticsRows(const Walk<T>& walk) : wanted(walk.task.statistics) {
    if (!wanted) return;
    T* next = walk.rows.statistics;
    const auto take = [&](std::int64_t lines) { return std::exchange(next, next + lines * kRowBlock); };
    const StatisticsCounts& counts = wanted->counts;
    spread = take(1), keys_sum = take(1), squares = take(1), distance = take(1), visible = take(1);
    duplicate = take(1), induction = take(1), token = take(1);
    tokens = take(kTokenLines), class_words = reinterpret_cast<std::uint32_t*>(take(kClassLines));
    class_flags = take(kFlagLines * counts.classes);
    classes = take(counts.classes), offsets = take(counts.offsets), keys = take(counts.keys);
    top_scores = take(counts.top), top_keys = take(counts.top);
  }
};

// A key in a lane: the bits of a normal number, which every target moves and broadcasts as they are. -1: none.
template <class T>
constexpr typename StatisticsRows<T>::Bits kFirstCode = sizeof(T) == 4 ? 0x00800000u : 0x0010000000000000u;
template <class T>
MULTIHEAD_INLINE T key_code(std::int64_t key) {
  using Bits = typename StatisticsRows<T>::Bits;
  return std::bit_cast<T>(static_cast<Bits>(kFirstCode<T> + 1 + static_cast<Bits>(key)));
}
template <class T>
MULTIHEAD_INLINE std::int64_t key_of_code(T code) {
  const auto bits = std::bit_cast<typename StatisticsRows<T>::Bits>(code);
  return static_cast<std::int64_t>(bits - kFirstCode<T>) - 1;
}

// The scores of a register's rows at their offsets and at the chosen keys, where they are among the keys [begin, end)
// of the block that the register sees; outside them stand the scores of other blocks. Of a key that a row does not see
// the score is -inf.
template <class T>
void take_scores(const Walk<T>& walk, const StatisticsRows<T>& to, int vec, std::int64_t start, KeyRange block) {
  using Lanes = Vec<T>;
  const StatisticsTask<T>& wanted = *to.wanted;
  const int lane = vec * Lanes::kLanes;
  const T* const scores = walk.rows.scores + lane;
  for (std::int64_t i = 0; i < wanted.counts.offsets; ++i) {
    const std::int64_t first = wanted.position + lane - start + wanted.offsets[i];
    if (first >= block.end || first + Lanes::kLanes <= block.begin) continue;
    T* const line = to.offsets + i * kRowBlock + lane;
    for (std::int64_t row = 0; row < Lanes::kLanes; ++row)
      if (block.begin <= first + row && first + row < block.end) line[row] = scores[(first + row) * kRowBlock + row];
  }
  for (std::int64_t i = 0; i < wanted.counts.keys; ++i) {
    const std::int64_t key = wanted.keys[i] - start;
    if (block.begin <= key && key < block.end)
      Lanes::load(scores + key * kRowBlock).store(to.keys + i * kRowBlock + lane);
  }
}

// The first of the block's largest scores, where it is larger than any before.
template <class T>
MULTIHEAD_NOINLINE void take_largest(const RowState<T>& rows, const StatisticsRows<T>& to, int lane, std::int64_t start,
                                     KeyRange block) {
  using Lanes = Vec<T>;
  const Lanes largest = Lanes::load(rows.block_max + lane), before = Lanes::load(to.top_scores + lane);
  const auto larger = before < largest;
  if (!Lanes::any(larger)) return;
  Lanes key_found = largest;
  for (std::int64_t key = block.end - 1; key >= block.begin; --key) {
    const auto is_largest = Lanes::load(rows.scores + key * kRowBlock + lane) == largest;
    key_found = Lanes::select(is_largest, Lanes::splat(key_code<T>(start + key)), key_found);
  }
  Lanes::select(larger, largest, before).store(to.top_scores + lane);
  Lanes::select(larger, key_found, Lanes::load(to.top_keys + lane)).store(to.top_keys + lane);
}

// Puts a score and its key where they belong in the lists of a register's lanes; equal scores stay before it. From the
// last place up, eight at a time, since a place needs nothing of those below it.
template <class T>
MULTIHEAD_INLINE void insert_score(const StatisticsRows<T>& to, int lane, Vec<T> score, Vec<T> key) {
  using Lanes = Vec<T>;
  std::int64_t place = to.wanted->counts.top - 1;
  T* scores = to.top_scores + place * kRowBlock + lane;
  T* keys = to.top_keys + place * kRowBlock + lane;
  Lanes here = Lanes::load(scores), key_here = Lanes::load(keys);
  auto passes = here < score;
  for (; place > 0; --place, scores -= kRowBlock, keys -= kRowBlock) {
    const Lanes above = Lanes::load(scores - kRowBlock), key_above = Lanes::load(keys - kRowBlock);
    const auto passes_above = above < score;
    Lanes::select(passes_above, above, Lanes::select(passes, score, here)).store(scores);
    Lanes::select(passes_above, key_above, Lanes::select(passes, key, key_here)).store(keys);
    if (place % 8 == 0 && !Lanes::any(passes_above)) return;
    here = above, key_here = key_above, passes = passes_above;
  }
  Lanes::select(passes, score, here).store(scores);
  Lanes::select(passes, key, key_here).store(keys);
}

// The block's scores into the lists of the largest. A NaN or -inf is larger than nothing. First the keys that some lane
// may list, without a branch a key, which nothing could foresee.
template <class T>
MULTIHEAD_NOINLINE void take_top(const RowState<T>& rows, const StatisticsRows<T>& to, int lane, std::int64_t start,
                                 KeyRange block) {
  using Lanes = Vec<T>;
  const Lanes least = Lanes::load(to.top_scores + (to.wanted->counts.top - 1) * kRowBlock + lane);
  if (!Lanes::any(least < Lanes::load(rows.block_max + lane))) return;
  std::uint8_t listed[kKeyBlock];
  int count = 0;
  for (int key = static_cast<int>(block.begin); key < block.end; ++key) {
    listed[count] = static_cast<std::uint8_t>(key);
    count += Lanes::any(least < Lanes::load(rows.scores + key * kRowBlock + lane)) ? 1 : 0;
  }
  for (int i = 0; i < count; ++i)
    insert_score<T>(to, lane, Lanes::load(rows.scores + listed[i] * kRowBlock + lane),
                    Lanes::splat(key_code<T>(start + listed[i])));
}

// Counts the keys that dense masks, ranges and a bias let be seen.
template <class T>
MULTIHEAD_NOINLINE void count_visible(const RowState<T>& rows, const StatisticsRows<T>& to, int lane, KeyRange block) {
  using Lanes = Vec<T>;
  const Lanes zero = Lanes::splat(0), one = Lanes::splat(1);
  Lanes count = zero;
  for (int key = static_cast<int>(block.begin); key < block.end; ++key) {
    Lanes seen = Lanes::select(seen_by_masks(rows, lane, key), one, zero);
    if (rows.lows) seen = unless_hidden(Lanes::load(rows.bias + key * kRowBlock + lane), seen, zero);
    count = count + seen;
  }
  (Lanes::load(to.visible + lane) + count).store(to.visible + lane);
}

// All of the above for one register and the keys [begin, end) of the block at start.
template <class T>
void statistics_of_scores(const Walk<T>& walk, const StatisticsRows<T>& to, int vec, std::int64_t start,
                          KeyRange block) {
  const StatisticsTask<T>& wanted = *to.wanted;
  const int lane = vec * Vec<T>::kLanes;
  if (wanted.counts.offsets + wanted.counts.keys > 0) take_scores(walk, to, vec, start, block);
  if (wanted.counts.top == 1) take_largest(walk.rows, to, lane, start, block);
  if (wanted.counts.top > 1) take_top(walk.rows, to, lane, start, block);
  if (wanted.visible.data && walk.task.terms.dense()) count_visible(walk.rows, to, lane, block);
}

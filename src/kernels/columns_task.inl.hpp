// SPDX-License-Identifier: Apache-2.0
// What keys get from rows, in a second pass with the row_max and row_sum that the first one left: the weights of a row
// block, a block of keys at a time, added up along the rows.
//
// Row r adds to chain r mod kSumChains of each key, rows ascending: row blocks begin at multiples of kSumChains, so a
// lane stands for one chain in all of them. A cell of the map gets the sum of each kSumChains rows over the keys of a
// block, first key by key in lanes, then over the lanes by the fixed tree; row blocks ascending, in each the blocks of
// keys, in each the groups of rows.

static_assert(kRowBlock % kSumChains == 0);

// Weights of the block's keys [seen.begin, seen.end), zero where a row does not see the key.
template <class T>
void column_weights(const Walk<T>& walk, std::int64_t start, KeyRange seen, const bool (&careful)[kMaxVecs]) {
  using Lanes = Vec<T>;
  const bool terms = walk.terms();
  each_group(walk, start, [&](const Group& group) {
    if (group.begin < group.end) {
      score_block(walk, group);
      if (terms) terms_block(walk, group);
    }
    for (int vec = group.first; vec < group.first + group.count; ++vec) {
      int begin = walk.block_begin(vec, start), end = walk.block_end(vec, start);
      if (begin >= end) begin = end = static_cast<int>(seen.begin);
      normalise(walk, vec, begin, end);
      const int lane = vec * Lanes::kLanes;
      if (careful[vec]) drop_hidden(walk.rows, lane, begin, end);
      T* const weights = walk.rows.scores + lane;
      for (auto key = static_cast<int>(seen.begin); key < begin; ++key)
        Lanes::splat(0).store(weights + key * kRowBlock);
      for (int key = end; key < seen.end; ++key) Lanes::splat(0).store(weights + key * kRowBlock);
    }
  });
}

// chains[key][r mod kSumChains] += weight of row r.
template <class T>
MULTIHEAD_NOINLINE void add_to_chains(const T* weights, int vecs, int begin, int end, T* chains) {
  using Lanes = Vec<T>;
  constexpr int kVecs = kSumChains / Lanes::kLanes;
  for (int key = begin; key < end; ++key)
    for (int v = 0; v < std::min(kVecs, vecs); ++v) {
      T* const chain = chains + key * kSumChains + v * Lanes::kLanes;
      Lanes sum = Lanes::load(chain);
      for (int vec = v; vec < vecs; vec += kVecs)
        sum = sum + Lanes::load(weights + key * kRowBlock + vec * Lanes::kLanes);
      sum.store(chain);
    }
}

// The sum of kSumChains rows over the keys [begin, end).
template <class T>
MULTIHEAD_INLINE T sum_of_rows(const T* weights, int vecs, int begin, int end) {
  using Lanes = Vec<T>;
  T chains[kSumChains] = {};
  for (int vec = 0; vec < vecs; ++vec) {
    Lanes sum = Lanes::splat(0);
    for (int key = begin; key < end; ++key) sum = sum + Lanes::load(weights + key * kRowBlock + vec * Lanes::kLanes);
    sum.store(chains + vec * Lanes::kLanes);
  }
  for (int step = kSumChains / 2; step > 0; step /= 2)
    for (int chain = 0; chain < step; ++chain) chains[chain] = chains[chain] + chains[chain + step];
  return chains[0];
}

// Adds the block to the cells of the map that it lies in.
template <class T>
MULTIHEAD_NOINLINE void add_to_map(const ColumnsTask<T>& task, const Walk<T>& walk, std::int64_t start, KeyRange seen) {
  constexpr int kVecs = kSumChains / Vec<T>::kLanes;
  const int width = static_cast<int>(std::min<std::int64_t>(task.bin, kKeyBlock));
  for (int first = 0; first < walk.vecs; first += kVecs) {
    const int vecs = std::min(kVecs, walk.vecs - first);
    T* const line = task.map + (task.row + first * Vec<T>::kLanes) / task.bin * task.map_row_stride;
    for (int key = static_cast<int>(seen.begin) / width * width; key < seen.end; key += width) {
      const int begin = std::max(key, static_cast<int>(seen.begin));
      const int end = std::min(key + width, static_cast<int>(seen.end));
      T& cell = line[(start + key) / task.bin * task.map_key_stride];
      cell = cell + sum_of_rows<T>(walk.rows.scores + first * Vec<T>::kLanes, vecs, begin, end);
    }
  }
}

template <class T>
void columns_task(const ColumnsTask<T>& task) noexcept {
  using Lanes = Vec<T>;
  const AttentionTask<T>& attention = task.attention;
  Walk<T> walk(attention);
  const RowState<T>& rows = walk.rows;
  pack_queries(attention, rows);
  bool careful[kMaxVecs] = {}, any_careful = false;
  for (int vec = 0; vec < walk.vecs; ++vec) {
    for (int row = vec * Lanes::kLanes; row < (vec + 1) * Lanes::kLanes; ++row) {
      const int stored = std::min(row, attention.rows - 1);
      rows.max[row] = attention.row_max[stored], rows.sum[row] = attention.row_sum[stored];
      rows.block_max[row] = kMinusInfinity<T>, rows.found[row] = 0;
      rows.block_factor[row] = row < attention.rows ? T(1) : T(0);
      const T share = T(1) / rows.sum[row];
      careful[vec] |= row >= attention.rows || !(share - share == 0);
    }
    any_careful |= careful[vec];
  }
  for (std::int64_t start = task.k_begin; start < task.k_end; start = walk.block_after(start)) {
    walk.enter(start);
    const KeyRange seen = walk.block_keys(start);
    if (seen.begin >= seen.end) continue;
    if (walk.terms() && !open_terms(walk, start, seen)) continue;
    if (attention.terms.dense() || any_careful || !walk.all_see(start)) walk.set_ranges(start);
    walk.set_keys(start, seen);
    column_weights(walk, start, seen, careful);
    if (task.chains)
      add_to_chains<T>(rows.scores, walk.vecs, static_cast<int>(seen.begin), static_cast<int>(seen.end),
                       task.chains + (start - task.k_begin) * kSumChains);
    if (task.map) add_to_map(task, walk, start, seen);
  }
}

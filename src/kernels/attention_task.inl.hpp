// SPDX-License-Identifier: Apache-2.0
// The walk of an attention task: which keys its rows see, block by block and register by register.

constexpr int kMaxVecs = kRowBlock / 2;  // registers of a row block on the narrowest target

// The ranges of the task's rows, register by register, and the walk over the keys that some row sees. A group is
// kTileVecs registers: the rows that one tile computes.
template <class T>
struct Walk {
  static constexpr int kLanes = Vec<T>::kLanes;

  const AttentionTask<T>& task;
  RowState<T> rows;
  int vecs;
  VecRange ranges[kMaxVecs];

  explicit Walk(const AttentionTask<T>& attention)
      : task(attention),
        rows(attention.scratch, attention.head_dim, attention.value_dim),
        vecs((attention.rows + kLanes - 1) / kLanes) {
    for (int vec = 0; vec < vecs; ++vec) ranges[vec] = range_of(vec);
  }

  // Lanes past the last row repeat it.
  const KeyRange& visible(int row) const { return task.visible[std::min(row, task.rows - 1)]; }

  VecRange range_of(int vec) const {
    VecRange range{std::numeric_limits<std::int64_t>::max(), 0, 0, std::numeric_limits<std::int64_t>::max()};
    for (int row = vec * kLanes; row < (vec + 1) * kLanes; ++row) {
      const KeyRange& seen = visible(row);
      range.all_begin = std::max(range.all_begin, seen.begin);
      range.all_end = std::min(range.all_end, seen.end);
      if (seen.begin == seen.end) continue;
      range.any_begin = std::min(range.any_begin, seen.begin);
      range.any_end = std::max(range.any_end, seen.end);
    }
    if (range.any_end == 0) range.any_begin = 0;
    return range;
  }

  // The keys of block [start, start + kKeyBlock) that a register sees, counted from start; empty: begin >= end.
  int block_begin(int vec, std::int64_t start) const {
    return static_cast<int>(std::clamp<std::int64_t>(ranges[vec].any_begin - start, 0, kKeyBlock));
  }
  int block_end(int vec, std::int64_t start) const {
    return static_cast<int>(std::clamp<std::int64_t>(ranges[vec].any_end - start, 0, kKeyBlock));
  }
  bool sees(int vec, std::int64_t start, int begin, int end) const {
    return std::max(block_begin(vec, start), begin) < std::min(block_end(vec, start), end);
  }
  bool all_see(int vec, std::int64_t start, int begin, int end) const {
    return ranges[vec].all_begin <= start + begin && start + end <= ranges[vec].all_end;
  }

  bool all_see(std::int64_t start) const {
    for (int vec = 0; vec < vecs; ++vec)
      if (!all_see(vec, start, 0, kKeyBlock)) return false;
    return true;
  }

  // The key ranges of each lane, counted from the block's start, for tiles that must mask.
  void set_block(std::int64_t start) {
    for (int row = 0; row < vecs * kLanes; ++row) {
      const KeyRange& seen = visible(row);
      rows.begin[row] = static_cast<T>(std::clamp<std::int64_t>(seen.begin - start, 0, kKeyBlock));
      rows.end[row] = static_cast<T>(std::clamp<std::int64_t>(seen.end - start, 0, kKeyBlock));
    }
  }
};

// A group of registers [first, first + count) within one block: the keys [begin, end) that any of them sees.
struct Group {
  int first, count;
  std::int64_t start;
  int begin, end;
};

template <class T>
Group group_of(const Walk<T>& walk, int first, std::int64_t start) {
  Group group{first, std::min(kTileVecs, walk.vecs - first), start, kKeyBlock, 0};
  for (int vec = first; vec < first + group.count; ++vec) {
    const int begin = walk.block_begin(vec, start), end = walk.block_end(vec, start);
    if (begin >= end) continue;
    group.begin = std::min(group.begin, begin);
    group.end = std::max(group.end, end);
  }
  return group;
}

template <class T, int N>
void score_strip(const Walk<T>& walk, const Group& group, int key) {
  int low = group.count, high = 0;
  bool masked = false;
  for (int i = 0; i < group.count; ++i) {
    const int vec = group.first + i;
    if (!walk.sees(vec, group.start, key, key + N)) continue;
    low = std::min(low, i);
    high = i + 1;
  }
  for (int i = low; i < high; ++i) masked |= !walk.all_see(group.first + i, group.start, key, key + N);
  if (low >= high) return;
  const auto& task = walk.task;
  const int lane = (group.first + low) * Vec<T>::kLanes;
  const T* k = task.k + (group.start + key) * task.k_stride;
  const T scale = static_cast<T>(task.scale * std::numbers::log2e);
  const auto run = [&]<int V>() {
    score_tile<T, N, V>(k, task.k_stride, walk.rows.q + lane, task.head_dim, scale, walk.rows, lane, key, masked);
  };
  if (high - low == 1)
    run.template operator()<1>();
  else if (high - low == 2 || kTileVecs == 2)
    run.template operator()<2>();
  else
    run.template operator()<kTileVecs>();
}

// Scores of the group for the block's keys, in strips of as many keys as a tile broadcasts.
template <class T>
void score_block(const Walk<T>& walk, const Group& group) {
  int key = group.begin;
  for (; key + kTileBroadcasts <= group.end; key += kTileBroadcasts) score_strip<T, kTileBroadcasts>(walk, group, key);
  if constexpr (kTileBroadcasts > 4)
    if (key + 4 <= group.end) score_strip<T, 4>(walk, group, key), key += 4;
  if (key + 2 <= group.end) score_strip<T, 2>(walk, group, key), key += 2;
  if (key < group.end) score_strip<T, 1>(walk, group, key);
}

// Weights of the group; keys that a register does not see at all, while another of the group does, weigh zero.
template <class T>
void softmax_block(const Walk<T>& walk, const Group& group) {
  for (int i = 0; i < group.count; ++i) {
    const int vec = group.first + i, lane = vec * Vec<T>::kLanes;
    int begin = walk.block_begin(vec, group.start), end = walk.block_end(vec, group.start);
    if (begin >= end) begin = end = group.begin;
    softmax(walk.rows, lane, begin, end);
    T* weights = walk.rows.scores + lane;
    for (int key = group.begin; key < begin; ++key) Vec<T>::splat(0).store(weights + key * kRowBlock);
    for (int key = end; key < group.end; ++key) Vec<T>::splat(0).store(weights + key * kRowBlock);
  }
}

// Cuts the group's keys where a register begins or ends to see them.
template <class T>
int segments_of(const Walk<T>& walk, const Group& group, Segment (&segments)[2 * kTileVecs]) {
  int count = 0;
  for (int begin = group.begin; begin < group.end;) {
    Segment run{begin, group.end, group.count, 0};
    for (int i = 0; i < group.count; ++i) {
      const int from = walk.block_begin(group.first + i, group.start);
      const int to = walk.block_end(group.first + i, group.start);
      if (from > begin) run.end = std::min(run.end, from);
      if (to > begin) run.end = std::min(run.end, to);
      if (from > begin || to <= begin) continue;
      run.low = std::min(run.low, i);
      run.high = i + 1;
    }
    if (run.low < run.high) segments[count++] = run;
    begin = run.end;
  }
  return count;
}

template <class T>
void output_block(const Walk<T>& walk, const Group& group) {
  const auto& task = walk.task;
  const T* v = task.v + group.start * task.v_stride;
  bool partial = false;
  for (int i = 0; i < group.count; ++i) partial |= !walk.all_see(group.first + i, group.start, group.begin, group.end);
  if (partial && !all_finite(v + group.begin * task.v_stride, task.v_stride, group.end - group.begin, task.value_dim)) {
    for (int i = 0; i < group.count; ++i)
      output_careful(v, task.v_stride, walk.rows, (group.first + i) * Vec<T>::kLanes, task.value_dim, group.begin,
                     group.end);
    return;
  }
  Segment segments[2 * kTileVecs];
  const int count = segments_of(walk, group, segments);
  const int lane = group.first * Vec<T>::kLanes;
  int column = 0;
  const auto tile = [&]<int N>() {
    output_tile<T, N>(v, task.v_stride, walk.rows, lane, column, segments, count);
    column += N;
  };
  while (column + kTileBroadcasts <= task.value_dim) tile.template operator()<kTileBroadcasts>();
  if constexpr (kTileBroadcasts > 4)
    if (column + 4 <= task.value_dim) tile.template operator()<4>();
  if (column + 2 <= task.value_dim) tile.template operator()<2>();
  if (column < task.value_dim) tile.template operator()<1>();
}

// The whole range of keys that some row of the task sees.
template <class T>
KeyRange keys_of(const Walk<T>& walk) {
  KeyRange keys{std::numeric_limits<std::int64_t>::max(), 0};
  for (int vec = 0; vec < walk.vecs; ++vec) {
    if (walk.ranges[vec].any_begin == walk.ranges[vec].any_end) continue;
    keys.begin = std::min(keys.begin, walk.ranges[vec].any_begin);
    keys.end = std::max(keys.end, walk.ranges[vec].any_end);
  }
  return keys;
}

// Divides by the sum, makes rows that see no key zero, writes rows, lse and statistics.
template <class T>
void finish(const Walk<T>& walk) {
  using Lanes = Vec<T>;
  const auto& task = walk.task;
  const RowState<T>& rows = walk.rows;
  for (int lane = 0; lane < walk.vecs * Lanes::kLanes; lane += Lanes::kLanes) {
    T* const seen = rows.begin + lane;
    for (int i = 0; i < Lanes::kLanes; ++i) {
      const KeyRange& range = walk.visible(lane + i);
      seen[i] = range.begin < range.end ? T(1) : T(0);
    }
    const auto empty = Lanes::load(seen) == Lanes::splat(0);
    const Lanes sum = Lanes::load(rows.sum + lane);
    const Lanes share = Lanes::splat(1) / sum;
    for (int column = 0; column < task.value_dim; ++column) {
      T* out = rows.out + column * kRowBlock + lane;
      Lanes::select(empty, Lanes::splat(0), Lanes::fma(Lanes::load(out), share, Lanes::splat(0))).store(out);
    }
    const Lanes lse =
        Lanes::fma(Lanes::load(rows.max + lane), Lanes::splat(static_cast<T>(std::numbers::ln2)), log<T>(sum));
    Lanes::select(empty, Lanes::splat(kMinusInfinity<T>), lse).store(rows.end + lane);
  }
  unpack_panel<T>(rows.out, task.rows, task.value_dim, task.out, task.out_stride);
  for (int row = 0; row < task.rows; ++row) {
    if (task.lse) task.lse[row * task.lse_stride] = rows.end[row];
    if (task.row_max) task.row_max[row] = rows.max[row];
    if (task.row_sum) task.row_sum[row] = rows.sum[row];
  }
}

template <class T>
void attention_task(const AttentionTask<T>& task) noexcept {
  using Lanes = Vec<T>;
  count_task(kTarget);
  Walk<T> walk(task);
  const RowState<T>& rows = walk.rows;
  pack_panel<T>(task.q, task.q_stride, task.rows, task.head_dim, rows.q);
  const int lanes = walk.vecs * Lanes::kLanes;
  for (int lane = 0; lane < lanes; ++lane) rows.max[lane] = kMinusInfinity<T>, rows.sum[lane] = 0;
  for (int column = 0; column < task.value_dim; ++column) std::fill_n(rows.out + column * kRowBlock, lanes, T(0));
  const KeyRange keys = keys_of(walk);
  for (std::int64_t start = keys.begin / kKeyBlock * kKeyBlock; start < keys.end; start += kKeyBlock) {
    if (!walk.all_see(start)) walk.set_block(start);
    for (int first = 0; first < walk.vecs; first += kTileVecs) {
      const Group group = group_of(walk, first, start);
      if (group.begin >= group.end) continue;
      std::fill_n(rows.block_max + first * Lanes::kLanes, group.count * Lanes::kLanes, kMinusInfinity<T>);
      score_block(walk, group);
      softmax_block(walk, group);
      output_block(walk, group);
    }
  }
  finish(walk);
}

// Weights in a second pass, so that asking for them touches nothing of the first: the scores again, then
// 2^(score - row_max) / row_sum, written row by row.
template <class T>
void weights_task(const WeightsTask<T>& task) noexcept {
  using Lanes = Vec<T>;
  const AttentionTask<T>& attention = task.attention;
  Walk<T> walk(attention);
  const RowState<T>& rows = walk.rows;
  pack_panel<T>(attention.q, attention.q_stride, attention.rows, attention.head_dim, rows.q);
  const auto put = [&](int row, std::int64_t key, T weight) {
    T& to = task.weights[row * task.weights_stride + key * task.key_stride];
    to = task.add ? to + weight : weight;
  };
  for (int row = 0; row < attention.rows; ++row) {
    const KeyRange& seen = attention.visible[row];
    for (std::int64_t key = 0; key < seen.begin; ++key) put(row, key, 0);
    for (std::int64_t key = seen.end; key < task.kv_len; ++key) put(row, key, 0);
  }
  const KeyRange keys = keys_of(walk);
  for (std::int64_t start = keys.begin / kKeyBlock * kKeyBlock; start < keys.end; start += kKeyBlock) {
    if (!walk.all_see(start)) walk.set_block(start);
    for (int first = 0; first < walk.vecs; first += kTileVecs) {
      const Group group = group_of(walk, first, start);
      if (group.begin >= group.end) continue;
      score_block(walk, group);
    }
    for (int row = 0; row < attention.rows; ++row) {
      const KeyRange& seen = attention.visible[row];
      const Lanes max = Lanes::splat(attention.row_max[row] == kMinusInfinity<T> ? 0 : attention.row_max[row]);
      const Lanes share = Lanes::splat(task.factor) / Lanes::splat(attention.row_sum[row]);
      const std::int64_t end = std::min(seen.end, start + kKeyBlock);
      for (std::int64_t key = std::max(seen.begin, start); key < end; key += Lanes::kLanes) {
        const int count = static_cast<int>(std::min<std::int64_t>(end - key, Lanes::kLanes));
        T lanes[Lanes::kLanes] = {};
        for (int i = 0; i < count; ++i) lanes[i] = rows.scores[(key - start + i) * kRowBlock + row];
        (exp2_nonpositive<T>(Lanes::load(lanes) - max) * share).store(lanes);
        for (int i = 0; i < count; ++i) put(row, key + i, lanes[i]);
      }
    }
  }
}

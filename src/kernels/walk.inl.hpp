// SPDX-License-Identifier: Apache-2.0
// The walk over the keys of a task: which of them its rows see, block by block and register by register.

constexpr int kMaxVecs = kRowBlock / 2;  // registers of a row block on the narrowest target

// Of the block at hand, where a target multiplies pairs (pairs.inl.hpp).
template <class T>
struct PairBlock {
  const std::uint16_t* keys = nullptr;
  std::int64_t k_stride = 0;
  const T* values = nullptr;  // turned round
  T* sums = nullptr;          // of a row's weights as they are multiplied, or null: those of the softmax are taken
  bool special = false;       // a value is not finite
  std::bitset<kKeyBlock> marked_keys, marked_values;  // those that tiles cannot take (parts.inl.hpp)
};

// Of the block at hand, where keys and values are cached (cached_keys.inl.hpp).
template <class T>
struct CachedBlock {
  const T* keys[kKeyBlock / kCacheBlock] = {};  // blocks of kCacheBlock, channel by channel, where they are blocked
  const T *key_scales = nullptr, *value_scales = nullptr;  // [kKeyBlock], of int8 by position
};

// The keys of a block that a register sees, and those that all of its rows see, counted from the block's first; empty:
// begin >= end.
struct BlockKeys {
  int begin, end, all_begin, all_end;

  bool sees(int from, int to) const { return std::max(begin, from) < std::min(end, to); }
  bool all_see(int from, int to) const { return all_begin <= from && to <= all_end; }
};

// The ranges of the task's rows, register by register, and the walk over the keys that some row sees. A group is
// kTileVecs registers at most: the rows that one tile computes.
template <class T>
struct Walk {
  static constexpr int kLanes = Vec<T>::kLanes;

  const AttentionTask<T>& task;
  RowState<T> rows;
  int vecs;
  VecRange ranges[kMaxVecs];
  // Of the block at hand: its first key and value, and their strides.
  const T* keys = nullptr;
  const T* values = nullptr;
  std::int64_t k_stride, v_stride;
  PairBlock<T> pairs;
  CachedBlock<T> cached;
  // Of a window that keeps first keys: whether the block lies behind them, its end where they end in it, and whether a
  // row's window begins there too: then a gap is between them, which the bits at rows.seen hide. Elsewhere a range says
  // all that a row sees of a block.
  T* const bits = rows.seen;
  bool beyond_first = false, gapped = false;
  std::int64_t first_ends_before = 0;
  std::int64_t far_end = 0;  // the end of the keys, where they are too many to stay near the core from task to task

  explicit Walk(const AttentionTask<T>& attention)
      : task(attention),
        rows(attention),
        vecs((attention.rows + kLanes - 1) / kLanes),
        k_stride(rows.keys || keeps_rows() ? attention.head_dim : attention.k.stride),
        v_stride(rows.values || keeps_rows() ? attention.value_dim : attention.v.stride) {
    find_ranges();
    constexpr std::int64_t kNear = 2 * 1024 * 1024;  // bytes: with less, asking costs more than it saves
    const bool far =
        !task.in_parts && task.kv_len * (task.head_dim + task.value_dim) * static_cast<std::int64_t>(sizeof(T)) > kNear;
    for (int vec = 0; !kPairs && far && task.out && !rows.keys && !keeps_rows() && vec < vecs; ++vec)
      far_end = std::max(far_end, ranges[vec].any_end);
  }

  // Before a block, from the first one on.
  void enter(std::int64_t start) {
    const std::int64_t first = task.terms.first;
    if (first == 0) return;
    const bool beyond = first <= start;
    const std::int64_t end = !beyond && first < start + kKeyBlock ? start + kKeyBlock : 0;
    if (beyond == beyond_first && end == first_ends_before) return;
    beyond_first = beyond, first_ends_before = end;
    gapped = first < task.terms.gap(task.rows - 1).end && task.terms.gap(0).end < end;
    find_ranges();
  }
  // The block to look at after this one: between the first keys and the next that a row sees there is none.
  std::int64_t block_after(std::int64_t start) const {
    const std::int64_t next = start + kKeyBlock;
    if (task.terms.first == 0 || next < task.terms.first) return next;
    return std::max(next, task.terms.gap(0).end / kKeyBlock * kKeyBlock);
  }
  bool terms() const { return gapped || task.terms.any(); }
  // Whether there are terms that take a pass over the scores of their own.
  bool passes() const {
    return task.terms.cap != 0 || task.terms.slope != 0 || task.terms.by_distance || task.terms.by_key;
  }

  // Lanes past the last row repeat it.
  const KeyRange& visible(int row) const { return task.visible[std::min(row, task.rows - 1)]; }
  // The same as the block at hand has it.
  KeyRange row_range(int row) const {
    KeyRange seen = visible(row);
    if (task.terms.first > 0) {
      const KeyRange gap = task.terms.gap(std::min(row, task.rows - 1));
      if (beyond_first) seen.begin = std::max(seen.begin, gap.end);
      if (first_ends_before > 0 && first_ends_before <= gap.end) seen.end = std::min(seen.end, gap.begin);
    }
    return seen.begin < seen.end ? seen : KeyRange{0, 0};
  }

  void find_ranges() {
    for (int vec = 0; vec < vecs; ++vec) ranges[vec] = range_of(vec);
    if (task.terms.first > 0) rows.seen = gapped || task.terms.masks() ? bits : nullptr;
  }
  VecRange range_of(int vec) const {
    const KeyRange first = row_range(vec * kLanes);
    // Then the rows between see the same.
    if (task.terms.first == 0 && !first.empty() && first == row_range((vec + 1) * kLanes - 1))
      return {first.begin, first.end, first.begin, first.end};
    VecRange range{std::numeric_limits<std::int64_t>::max(), 0, 0, std::numeric_limits<std::int64_t>::max()};
    for (int row = vec * kLanes; row < (vec + 1) * kLanes; ++row) {
      const KeyRange seen = row_range(row);
      range.all_begin = std::max(range.all_begin, seen.begin);
      if (gapped) range.all_begin = std::max(range.all_begin, task.terms.gap(std::min(row, task.rows - 1)).end);
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
  BlockKeys block_keys_of(int vec, std::int64_t start) const {
    const auto within = [start](std::int64_t key) {
      return static_cast<int>(std::clamp<std::int64_t>(key - start, 0, kKeyBlock));
    };
    const VecRange& range = ranges[vec];
    return {within(range.any_begin), within(range.any_end), within(range.all_begin), within(range.all_end)};
  }
  bool sees(int vec, std::int64_t start, int begin, int end) const {
    return block_keys_of(vec, start).sees(begin, end);
  }
  bool all_see(int vec, std::int64_t start, int begin, int end) const {
    return ranges[vec].all_begin <= start + begin && start + end <= ranges[vec].all_end;
  }

  bool all_see(std::int64_t start) const {
    for (int vec = 0; vec < vecs; ++vec)
      if (!all_see(vec, start, 0, kKeyBlock)) return false;
    return true;
  }

  // The keys [first, last) of the block that some row sees, counted from its start.
  KeyRange block_keys(std::int64_t start) const {
    KeyRange seen{kKeyBlock, 0};
    for (int vec = 0; vec < vecs; ++vec) {
      if (block_begin(vec, start) >= block_end(vec, start)) continue;
      seen.begin = std::min<std::int64_t>(seen.begin, block_begin(vec, start));
      seen.end = std::max<std::int64_t>(seen.end, block_end(vec, start));
    }
    return seen;
  }

  // The keys of the block that a row sees, counted from its start.
  KeyRange row_keys(int row, std::int64_t start) const {
    const KeyRange seen = row_range(row);
    return {std::clamp<std::int64_t>(seen.begin - start, 0, kKeyBlock),
            std::clamp<std::int64_t>(seen.end - start, 0, kKeyBlock)};
  }

  // The key ranges of each lane, counted from the block's start, for what must mask.
  void set_ranges(std::int64_t start) {
    if (all_see(start)) {
      std::fill_n(rows.begin, vecs * kLanes, T(0)), std::fill_n(rows.end, vecs * kLanes, T(kKeyBlock));
      return;
    }
    for (int row = 0; row < vecs * kLanes; ++row) {
      const KeyRange seen = row_keys(row, start);
      rows.begin[row] = static_cast<T>(seen.begin), rows.end[row] = static_cast<T>(seen.end);
    }
  }

  // Points keys to the block, widening those that are seen where they are stored in two bytes.
  void set_keys(std::int64_t start, KeyRange seen) {
    if constexpr (kPairs)
      set_key_pairs(*this, start, seen);
    else
      point_to_keys(start, seen);
  }
  // The same of all values: whether they are finite is asked once for all rows.
  void set_values(std::int64_t start, KeyRange seen) {
    if constexpr (kPairs)
      set_value_pairs(*this, start, seen);
    else
      point_to_values(start, {0, std::min<std::int64_t>(kKeyBlock, task.kv_len - start)});
  }
  // To rows where they stand, to those that the worker keeps, or to copies of a range as floats.
  void point_to_keys(std::int64_t start, KeyRange range) {
    if constexpr (sizeof(T) == sizeof(float))
      if (task.cache) return point_to_cached_keys(*this, start, range);
    const T* const kept = kept_rows(start);
    keys = kept ? kept : block_of(task.k, start, range, task.head_dim, rows.keys);
  }
  void point_to_values(std::int64_t start, KeyRange range) {
    if constexpr (sizeof(T) == sizeof(float))
      if (task.cache) return point_to_cached_values(*this, start, range);
    const T* const kept = kept_rows(start);
    values = kept ? kept + kKeyBlock * task.head_dim : block_of(task.v, start, range, task.value_dim, rows.values);
  }
  bool keeps_rows() const { return task.needs.keeps_rows && task.kept_blocks > 0; }
  // Keys of the block side by side, as T, then its values, as the worker keeps them for all tasks of the head; or null.
  // Of more blocks than it keeps one takes another's place.
  const T* kept_rows(std::int64_t start) const {
    if (!keeps_rows()) return nullptr;
    const std::int64_t place = start / kKeyBlock % task.kept_blocks;
    T* const kept = task.kept + place * kept_elements(task.needs);
    const std::uint64_t id = (task.first_block_id + static_cast<std::uint64_t>(start) + 1) << 1;
    if (std::exchange(task.kept_ids[place], id) != id) {
      const KeyRange all{0, std::min<std::int64_t>(kKeyBlock, task.kv_len - start)};
      block_of(task.k, start, all, task.head_dim, kept);
      block_of(task.v, start, all, task.value_dim, kept + kKeyBlock * task.head_dim);
    }
    return kept;
  }
  static const T* block_of(const StoredRows& stored, std::int64_t start, KeyRange seen, int columns, T* copies) {
    if (!copies) return static_cast<const T*>(stored.data) + start * stored.stride;
    for (std::int64_t key = seen.begin; key < seen.end; ++key) {
      const void* const from = element(stored.data, stored.type, (start + key) * stored.stride);
      if (stored.type == kTypeOf<T>)
        std::copy_n(static_cast<const T*>(from), columns, copies + key * columns);
      else
        load_row<T>(from, stored.type, 1, columns, copies + key * columns);
    }
    return copies;
  }
};

// A group of registers [first, first + count) within one block: the keys [begin, end) that any of them sees, and
// whether every row sees them all.
struct Group {
  int first, count;
  std::int64_t start;
  int begin, end;
  bool full;
  BlockKeys keys[kTileVecs];  // of each register
};

// The registers that are left from one on are cut evenly: of four, two and two, since one alone would have too few sums
// in a tile to hide what a multiply-add takes.
template <class T>
Group group_of(const Walk<T>& walk, int first, std::int64_t start) {
  const int left = walk.vecs - first, groups = (left + kTileVecs - 1) / kTileVecs;
  Group group{first, (left + groups - 1) / groups, start, kKeyBlock, 0, true, {}};
  for (int i = 0; i < group.count; ++i) {
    const BlockKeys keys = group.keys[i] = walk.block_keys_of(first + i, start);
    if (keys.begin >= keys.end) continue;
    group.begin = std::min(group.begin, keys.begin);
    group.end = std::max(group.end, keys.end);
  }
  for (int i = 0; i < group.count; ++i) group.full &= group.keys[i].all_see(group.begin, group.end);
  return group;
}

// All groups of the task.
template <class T, class Body>
void each_group(const Walk<T>& walk, std::int64_t start, const Body& body) {
  for (int first = 0; first < walk.vecs;) {
    const Group group = group_of(walk, first, start);
    body(group);
    first += group.count;
  }
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

// Cuts [begin, end) into strips as wide as a tile, and narrower ones at the end: run<N>(first).
template <class Run>
void in_strips(int begin, int end, const Run& run) {
  in_runs(begin, end, [&]<int N>(int at) {
    for (; at + N <= end; at += N) run.template operator()<N>(at);
    return at;
  });
}

// Keys from key on, the registers [low, high) of the group that see one of them, and whether some of their rows does
// not see some.
struct KeyStrip {
  int key, low, high;
  bool masked;
};

inline KeyStrip strip_of(const Group& group, int key, int count, bool masks) {
  if (group.full) return {key, 0, group.count, false};
  KeyStrip strip{key, group.count, 0, false};
  for (int i = 0; i < group.count; ++i) {
    if (!group.keys[i].sees(key, key + count)) continue;
    strip.low = std::min(strip.low, i);
    strip.high = i + 1;
  }
  for (int i = strip.low; masks && i < strip.high; ++i) strip.masked |= !group.keys[i].all_see(key, key + count);
  return strip;
}

// Keys [strip.key, end) whose strips of a tile's width are alike, from key on and at most up to most.
struct KeyRun {
  KeyStrip strip;
  int end;
};

inline KeyRun run_of(const Group& group, int key, int most, bool masks) {
  const auto strip_from = [&](int from) {
    return strip_of(group, from, std::min(kTileBroadcasts, most - from), masks);
  };
  KeyRun run{strip_from(key), std::min(key + kTileBroadcasts, most)};
  if (group.full) run.end = most;
  while (run.end < most) {
    const KeyStrip next = strip_from(run.end);
    if (next.low != run.strip.low || next.high != run.strip.high || next.masked != run.strip.masked) break;
    run.end = std::min(run.end + kTileBroadcasts, most);
  }
  return run;
}

// Runs a tile as wide as the strip, in registers: run<V>().
template <class Run>
void by_width(int width, const Run& run) {
  if (width == 1)
    run.template operator()<1>();
  else if (width == 2 || kTileVecs == 2)
    run.template operator()<2>();
  else
    run.template operator()<kTileVecs>();
}

// Cuts the group's keys where a register begins or ends to see them, or at the whole step of keys before or after.
inline Segments segments_of(const Group& group, int step) {
  const auto down = [step](int key) { return key / step * step; };
  const auto up = [step](int key) { return (key + step - 1) / step * step; };
  Segments segments{group.count};
  for (int begin = down(group.begin); begin < group.end;) {
    Segment run{begin, up(group.end), group.count, 0};
    for (int i = 0; i < group.count; ++i) {
      const int from = down(group.keys[i].begin), to = up(group.keys[i].end);
      if (from > begin) run.end = std::min(run.end, from);
      if (to > begin) run.end = std::min(run.end, to);
      if (from > begin || to <= begin) continue;
      run.low = std::min(run.low, i);
      run.high = i + 1;
    }
    if (run.low < run.high) segments.all[segments.count++] = run;
    begin = run.end;
  }
  return segments;
}

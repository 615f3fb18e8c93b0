// SPDX-License-Identifier: Apache-2.0
// The walk over the keys of a task: which of them its rows see, block by block and register by register.

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
  // Of the block at hand: its first key and value, and their strides.
  const T* keys = nullptr;
  const T* values = nullptr;
  std::int64_t k_stride, v_stride;

  explicit Walk(const AttentionTask<T>& attention)
      : task(attention),
        rows(attention),
        vecs((attention.rows + kLanes - 1) / kLanes),
        k_stride(rows.keys ? attention.head_dim : attention.k.stride),
        v_stride(rows.values ? attention.value_dim : attention.v.stride) {
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
    const KeyRange& seen = visible(row);
    return {std::clamp<std::int64_t>(seen.begin - start, 0, kKeyBlock),
            std::clamp<std::int64_t>(seen.end - start, 0, kKeyBlock)};
  }

  // The key ranges of each lane, counted from the block's start, for what must mask.
  void set_ranges(std::int64_t start) {
    for (int row = 0; row < vecs * kLanes; ++row) {
      const KeyRange seen = row_keys(row, start);
      rows.begin[row] = static_cast<T>(seen.begin), rows.end[row] = static_cast<T>(seen.end);
    }
  }

  // Points keys to the block, widening those that are seen where they are stored in two bytes.
  void set_keys(std::int64_t start, KeyRange seen) { keys = block_of(task.k, start, seen, task.head_dim, rows.keys); }
  void set_values(std::int64_t start, KeyRange seen) {
    values = block_of(task.v, start, seen, task.value_dim, rows.values);
  }
  static const T* block_of(const StoredRows& stored, std::int64_t start, KeyRange seen, int columns, T* widened) {
    if (!widened) return static_cast<const T*>(stored.data) + start * stored.stride;
    for (std::int64_t key = seen.begin; key < seen.end; ++key)
      load_row<T>(element(stored.data, stored.type, (start + key) * stored.stride), stored.type, 1, columns,
                  widened + key * columns);
    return widened;
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

// SPDX-License-Identifier: Apache-2.0
// A block of a decode task: where its keys and values lie in pages, which of them some row sees, and what must be
// copied to stand side by side.

// Where a position lies: in which of the sequence's pages, and where in it.
struct Place {
  std::int64_t page, at;

  // The position so many after this one.
  Place after(std::int64_t count, std::int64_t page_len) const {
    Place next{page, at + count};
    for (; next.at >= page_len; ++next.page) next.at -= page_len;
    return next;
  }
};

// kCacheBlock positions of a block: the keys [begin, end) that some row sees, counted from the block's first, none
// where begin == end; whole: every row sees them all.
struct DecodeChunk {
  int at;       // the first, counted from the block's
  Place place;  // of the first that is seen
  int begin, end;
  bool whole;
  const std::byte *keys, *values;  // of the first position, in its page; null where they do not lie side by side
};

struct DecodeWalk {
  const DecodeTask& task;
  DecodeRows rows;
  RowKeys seen[kDecodeRows];
  DecodeChunk chunks[kChunks];
  int begin = 0, end = 0;      // the keys of the chunks that some row sees
  std::int64_t last_seen = 0;  // positions before it are seen
  bool far = false;  // whether memory is asked for ahead: the rest of a model lies between two reads of a cache
  const std::byte* next_keys[kChunks];  // of the next block, where they are to be asked for

  explicit DecodeWalk(const DecodeTask& decode)
      : task(decode), rows(decode.scratch, decode.count, decode.head_dim, decode.value_dim) {
    for (int r = 0; r < task.count; ++r)
      last_seen = std::max({last_seen, task.rows[r].first, task.rows[r].visible.end});
    last_seen = std::min(last_seen, task.last_block * kKeyBlock);
    far = last_seen - task.first_block * kKeyBlock > kKeyBlock;
  }

  std::int64_t key_row() const {
    return task.cache.blocked ? task.head_dim * stored_bytes(task.cache.element) : task.cache.k_row;
  }
  std::int64_t value_row() const {
    return task.cache.blocked ? task.value_dim * stored_bytes(task.cache.element) : task.cache.v_row;
  }
  // The keys of so many chunks from one on, to be asked for.
  NextBytes next_bytes(const std::byte* keys, std::int64_t count) const {
    const std::int64_t row = task.head_dim * stored_bytes(task.cache.element);
    if (task.cache.blocked) return {keys, count * key_chunk()};
    return key_row() == row ? NextBytes{keys, count * kCacheBlock * row} : NextBytes{keys, row, key_row()};
  }
  // Bytes of kCacheBlock positions of blocked keys; bfloat16 has pairs of channels.
  std::int64_t key_chunk() const {
    const bool pairs = task.cache.element == Element::bfloat16;
    const std::int64_t channels = pairs ? (task.head_dim + 1) / 2 * 2 : task.head_dim;
    return channels * kCacheBlock * stored_bytes(task.cache.element);
  }
};

// Keys of a position, or of its chunk where blocked, whose page_len is a multiple of kCacheBlock.
inline const std::byte* keys_at(const DecodeWalk& walk, const Place& place) {
  const CachedRows& cache = walk.task.cache;
  const std::byte* const page = cache.k + cache.pages[place.page] * cache.k_page;
  return page + (cache.blocked ? place.at / kCacheBlock * walk.key_chunk() : place.at * walk.key_row());
}
inline const std::byte* values_at(const DecodeWalk& walk, const Place& place) {
  const CachedRows& cache = walk.task.cache;
  return cache.v + cache.pages[place.page] * cache.v_page + place.at * walk.value_row();
}
inline const float* scales_at(const DecodeWalk& walk, const float* scales, const Place& place) {
  const CachedRows& cache = walk.task.cache;
  const auto* const page = reinterpret_cast<const std::byte*>(scales) + cache.pages[place.page] * cache.scale_page;
  return reinterpret_cast<const float*>(page) + place.at;
}

// What the rows see of a chunk.
inline void set_chunk(const DecodeWalk& walk, DecodeChunk& chunk) {
  const int at = chunk.at, stop = at + kCacheBlock;
  chunk.begin = stop, chunk.end = at, chunk.whole = true;
  const auto meet = [&](int begin, int end) {
    begin = std::max(begin, at), end = std::min(end, stop);
    if (begin < end) chunk.begin = std::min(chunk.begin, begin), chunk.end = std::max(chunk.end, end);
  };
  for (int r = 0; r < walk.task.count; ++r) meet(0, walk.seen[r].first), meet(walk.seen[r].begin, walk.seen[r].end);
  if (chunk.begin >= chunk.end) chunk.begin = chunk.end = at;
  for (int r = 0; r < walk.task.count; ++r) chunk.whole &= walk.seen[r].whole(chunk.begin, chunk.end);
}

// Finds what is seen of the block and where it lies; false when no row sees a key of it.
inline bool open_block(DecodeWalk& walk, std::int64_t start) {
  const CachedRows& cache = walk.task.cache;
  for (int r = 0; r < walk.task.count; ++r) walk.seen[r] = keys_of_row(walk.task.rows[r], start);
  walk.begin = kKeyBlock, walk.end = 0;
  Place place{start / cache.page_len, start % cache.page_len};
  for (int i = 0; i < kChunks; ++i, place = place.after(kCacheBlock, cache.page_len)) {
    DecodeChunk& chunk = walk.chunks[i];
    chunk.at = i * kCacheBlock, chunk.keys = chunk.values = nullptr;
    set_chunk(walk, chunk);
    if (chunk.begin >= chunk.end) continue;
    walk.begin = std::min(walk.begin, chunk.at), walk.end = chunk.at + kCacheBlock;
    const std::int64_t into = chunk.begin - chunk.at;
    chunk.place = place.after(into, cache.page_len);
    if (chunk.place.at + chunk.end - chunk.begin > cache.page_len) continue;
    chunk.keys = keys_at(walk, chunk.place) - (cache.blocked ? 0 : into * walk.key_row());
    chunk.values = values_at(walk, chunk.place) - into * walk.value_row();
  }
  for (int i = 0; i < kChunks; ++i, place = place.after(kCacheBlock, cache.page_len)) {
    const bool there = walk.far && start + kKeyBlock + i * kCacheBlock < walk.last_seen;
    walk.next_keys[i] = there && cache.pages[place.page] >= 0 ? keys_at(walk, place) : nullptr;
  }
  return walk.begin < walk.end;
}

// Scales of the positions that some row sees.
inline void load_scales(const DecodeWalk& walk) {
  const CachedRows& cache = walk.task.cache;
  if (cache.element != Element::int8 || cache.by_channel) return;
  for (const DecodeChunk& chunk : walk.chunks) {
    Place place = chunk.place;
    for (int key = chunk.begin; key < chunk.end;) {
      const int count = static_cast<int>(std::min<std::int64_t>(chunk.end - key, cache.page_len - place.at));
      if (cache.pages[place.page] >= 0) {  // among those that rows see there may be some that none does
        std::copy_n(scales_at(walk, cache.k_scales, place), count, walk.rows.k_scales + key);
        std::copy_n(scales_at(walk, cache.v_scales, place), count, walk.rows.v_scales + key);
      }
      key += count, place = place.after(count, cache.page_len);
    }
  }
}

// Asks for values of a chunk, those of its positions [begin, end).
MULTIHEAD_INLINE void prefetch_values(const DecodeWalk& walk, const DecodeChunk& chunk, int begin, int end) {
  const std::int64_t row = walk.value_row(), bytes = walk.task.value_dim * stored_bytes(walk.task.cache.element);
  for (int key = begin; walk.far && chunk.values && key < end; ++key)
    for (std::int64_t at = 0; at < bytes; at += kLineBytes) __builtin_prefetch(chunk.values + key * row + at, 0, 3);
}

// A key as words of the products.
template <class P>
MULTIHEAD_INLINE void stage_key(const std::byte* from, std::int64_t head_dim, std::int64_t words, float* to) {
  if constexpr (P::kTogether == 2) {
    to[words - 1] = 0;
    std::memcpy(to, from, 2 * static_cast<std::size_t>(head_dim));
  } else if constexpr (P::kElement == Element::int8) {
    for (int c = 0; c < head_dim; ++c) to[c] = static_cast<float>(reinterpret_cast<const std::int8_t*>(from)[c]);
  } else {
    load_row<float>(from,
                    P::kElement == Element::float32   ? Type::float32
                    : P::kElement == Element::float16 ? Type::float16
                                                      : Type::bfloat16,
                    1, head_dim, to);
  }
}

// A register of keys of a chunk side by side in memory, from one on, as lines of the panel.
template <class P>
void stage_register(const DecodeWalk& walk, const DecodeChunk& chunk, int key, std::int64_t words) {
  constexpr int kLanes = Vec<float>::kLanes;
  const std::int64_t row = walk.key_row();
  const std::byte* const from = chunk.keys + key * row;
  prefetch_values(walk, chunk, key, key + kLanes);
  if (P::kElement == Element::float32)
    return pack_panel<float>(reinterpret_cast<const float*>(from), row / 4, kLanes, words, walk.rows.panel + key);
  for (int i = 0; i < kLanes; ++i) stage_key<P>(from + i * row, walk.task.head_dim, words, walk.rows.keys + i * words);
  pack_panel<float>(walk.rows.keys, words, kLanes, words, walk.rows.panel + key);
}

// The keys of a chunk that lie row by row, as lines of a panel; zeros where no row sees one. Meanwhile its values are
// asked for, evenly.
template <class P>
void stage_keys(const DecodeWalk& walk, const DecodeChunk& chunk) {
  const DecodeTask& task = walk.task;
  const std::int64_t words = key_lines<DecodeProducts<P::kStaged>>(task.head_dim);
  if (chunk.keys && chunk.end - chunk.begin == kCacheBlock) {
    for (int key = 0; key < kCacheBlock; key += Vec<float>::kLanes) stage_register<P>(walk, chunk, key, words);
    return;
  }
  std::fill_n(walk.rows.keys, kCacheBlock * words, 0.0f);
  Place place = chunk.place;
  for (int key = chunk.begin; key < chunk.end; ++key, place = place.after(1, task.cache.page_len)) {
    if (task.cache.pages[place.page] < 0) continue;
    prefetch_values(walk, chunk, key - chunk.at, key - chunk.at + 1);
    stage_key<P>(keys_at(walk, place), task.head_dim, words, walk.rows.keys + (key - chunk.at) * words);
  }
  pack_panel<float>(walk.rows.keys, words, kCacheBlock, words, walk.rows.panel);
}

// Values of a chunk where they stand; copies, and zeros where no row sees one, where they do not stand side by side.
inline const std::byte* chunk_values(const DecodeWalk& walk, const DecodeChunk& chunk, std::int64_t& row) {
  row = walk.value_row();
  if (chunk.values) return chunk.values;
  auto* const copies = reinterpret_cast<std::byte*>(walk.rows.values);
  const std::int64_t bytes = walk.task.value_dim * stored_bytes(walk.task.cache.element);
  const CachedRows& cache = walk.task.cache;
  Place place = chunk.place;
  for (int key = chunk.begin; key < chunk.end; ++key, place = place.after(1, cache.page_len)) {
    if (cache.pages[place.page] < 0)
      std::memset(copies + (key - chunk.at) * bytes, 0, static_cast<std::size_t>(bytes));
    else
      std::memcpy(copies + (key - chunk.at) * bytes, values_at(walk, place), static_cast<std::size_t>(bytes));
  }
  row = bytes;
  return copies;
}

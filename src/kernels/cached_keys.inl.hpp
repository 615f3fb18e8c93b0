// SPDX-License-Identifier: Apache-2.0
// Cached keys and values (CachedRows) for an attention task: read where they stand, or copied block by block.
//
//   float32   keys in place, where multiply-adds make the products: channels of 32 keys are a line, so a tile steps by
//   1
//             from key to key and by 32 from channel to channel; values in place where a block lies in one page
//   others    copied as rows of floats, beside the task's other memory; bfloat16 that is multiplied in pairs as it is
//
// What a copy holds is what plain rows hold, and a tile's chains are the same: so are the bits. Pages that were given
// back count as zeros, which no row sees. Nothing past the last valid position of the sequence is looked up.

// Bytes of an element.
MULTIHEAD_INLINE std::int64_t size_of_cached(CachedRows::Element element) {
  return element == CachedRows::Element::int8 ? 1 : element == CachedRows::Element::float32 ? 4 : 2;
}

// Elements of kCacheBlock positions to floats, or any other number.
MULTIHEAD_INLINE void load_cached(const std::byte* from, CachedRows::Element element, std::int64_t count, float* to) {
  using Element = CachedRows::Element;
  if (element == Element::int8) {
    const auto* const stored = reinterpret_cast<const std::int8_t*>(from);
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(stored[i]);
    return;
  }
  const Type type = element == Element::float32    ? Type::float32
                    : element == Element::bfloat16 ? Type::bfloat16
                                                   : Type::float16;
  load_row<float>(from, type, 1, count, to);
}

// The keys of a block of kCacheBlock, of its first position; null where its page was given back.
MULTIHEAD_INLINE const std::byte* cached_key_block(const CachedRows& cache, std::int64_t position, int head_dim) {
  const std::int64_t page = cache.pages[position / cache.page_len];
  if (page < 0) return nullptr;
  const std::int64_t channels = cache.element == CachedRows::Element::bfloat16 ? (head_dim + 1) / 2 * 2 : head_dim;
  const std::int64_t block = kCacheBlock * channels * size_of_cached(cache.element);
  return cache.k + page * cache.k_page + position % cache.page_len / kCacheBlock * block;
}

// The key of a position where keys lie row by row; null where its page was given back.
MULTIHEAD_INLINE const std::byte* cached_key_row(const CachedRows& cache, std::int64_t position) {
  const std::int64_t page = cache.pages[position / cache.page_len];
  return page < 0 ? nullptr : cache.k + page * cache.k_page + position % cache.page_len * cache.k_row;
}

MULTIHEAD_INLINE std::int64_t cached_value_stride(const CachedRows& cache, int value_dim) {
  return cache.blocked ? value_dim * size_of_cached(cache.element) : cache.v_row;
}

// The value of a position; null where its page was given back.
MULTIHEAD_INLINE const std::byte* cached_value_row(const CachedRows& cache, std::int64_t position, int value_dim) {
  const std::int64_t page = cache.pages[position / cache.page_len];
  if (page < 0) return nullptr;
  return cache.v + page * cache.v_page + position % cache.page_len * cached_value_stride(cache, value_dim);
}

// Whether positions [first, last] lie in one page that is there.
MULTIHEAD_INLINE bool in_one_page(const CachedRows& cache, std::int64_t first, std::int64_t last) {
  return first / cache.page_len == last / cache.page_len && cache.pages[first / cache.page_len] >= 0;
}

// Scales of the positions start + [range.begin, range.end), 1 where a page was given back.
MULTIHEAD_INLINE const float* copy_scales(const CachedRows& cache, const float* scales, std::int64_t start,
                                          KeyRange range, float* to) {
  for (std::int64_t key = range.begin; key < range.end; ++key) {
    const std::int64_t page = cache.pages[(start + key) / cache.page_len];
    const auto* const of_page =
        reinterpret_cast<const std::byte*>(scales) + std::max<std::int64_t>(page, 0) * cache.scale_page;
    to[key] = page < 0 ? 1.0f : reinterpret_cast<const float*>(of_page)[(start + key) % cache.page_len];
  }
  return to;
}

// Lines of kCacheBlock keys, channel by channel, of some channels: as floats, `line` of them apart.
template <class T>
MULTIHEAD_NOINLINE void load_cached_lines(const CachedRows& cache, const std::byte* block, KeyRange channels, T* to,
                                          std::int64_t line) {
  if (cache.element != CachedRows::Element::bfloat16) {
    const std::int64_t stored = kCacheBlock * size_of_cached(cache.element);
    if (line == kCacheBlock)
      return load_cached(block + channels.begin * stored, cache.element, (channels.end - channels.begin) * kCacheBlock,
                         to);
    for (std::int64_t c = channels.begin; c < channels.end; ++c)
      load_cached(block + c * stored, cache.element, kCacheBlock, to + (c - channels.begin) * line);
    return;
  }
  for (std::int64_t c = channels.begin; c < channels.end; ++c) {  // words of two channels
    std::uint32_t words[kCacheBlock];
    std::memcpy(words, block + c / 2 * 4 * kCacheBlock, sizeof words);
    for (std::uint32_t& word : words) word = c % 2 == 0 ? word << 16 : word & 0xFFFF0000u;
    std::memcpy(to + (c - channels.begin) * line, words, sizeof words);
  }
}

// Copies of the keys that are seen as rows of floats.
template <class T>
MULTIHEAD_NOINLINE void copy_cached_keys(const Walk<T>& walk, std::int64_t start, KeyRange seen) {
  const CachedRows& cache = *walk.task.cache;
  const int head_dim = walk.task.head_dim;
  if (!cache.blocked) {
    for (std::int64_t key = seen.begin; key < seen.end; ++key) {
      T* const to = walk.rows.keys + key * head_dim;
      if (const std::byte* const from = cached_key_row(cache, start + key))
        load_cached(from, cache.element, head_dim, to);
      else
        std::fill_n(to, head_dim, T(0));
    }
    return;
  }
  for (std::int64_t first = seen.begin / kCacheBlock * kCacheBlock; first < seen.end; first += kCacheBlock) {
    T* const to = walk.rows.keys + first * head_dim;
    const std::byte* const block = cached_key_block(cache, start + first, head_dim);
    if (!block) std::fill_n(to, kCacheBlock * head_dim, T(0));
    for (std::int64_t c = 0; block && c < head_dim; c += kKeyBlock) {  // the panel of scores, which are not there yet
      const std::int64_t end = std::min<std::int64_t>(head_dim, c + kKeyBlock);
      load_cached_lines(cache, block, {c, end}, walk.rows.scores, kRowBlock);
      unpack_panel<T>(walk.rows.scores, kCacheBlock, end - c, to + c, head_dim);
    }
  }
}

// Points to lines of the keys that are seen, where they stand or as copies.
template <class T>
void point_to_cached_lines(Walk<T>& walk, std::int64_t start, KeyRange seen) {
  const CachedRows& cache = *walk.task.cache;
  const int head_dim = walk.task.head_dim;
  const bool in_place = cache.element == CachedRows::Element::float32;
  for (std::int64_t i = seen.begin / kCacheBlock; i * kCacheBlock < seen.end; ++i) {
    const std::byte* const block = cached_key_block(cache, start + i * kCacheBlock, head_dim);
    T* const copy = walk.rows.keys + i * kCacheBlock * head_dim;
    walk.cached.keys[i] = block && in_place ? reinterpret_cast<const T*>(block) : copy;
    if (!block) std::fill_n(copy, kCacheBlock * head_dim, T(0));
    if (block && !in_place) load_cached_lines(cache, block, {0, head_dim}, copy, kCacheBlock);
  }
}

template <class T>
void point_to_cached_keys(Walk<T>& walk, std::int64_t start, KeyRange seen) {
  const CachedRows& cache = *walk.task.cache;
  if (cache.k_scales && !cache.by_channel)
    walk.cached.key_scales = copy_scales(cache, cache.k_scales, start, seen, walk.rows.scales);
  if (!kPairs && cache.blocked) return point_to_cached_lines(walk, start, seen);
  if (!cache.blocked && cache.element == CachedRows::Element::float32 &&
      in_one_page(cache, start, start + seen.end - 1)) {
    walk.keys = reinterpret_cast<const T*>(cached_key_row(cache, start));
    walk.k_stride = cache.k_row / static_cast<std::int64_t>(sizeof(T));
    return;
  }
  copy_cached_keys(walk, start, seen);
  walk.keys = walk.rows.keys;
  walk.k_stride = walk.task.head_dim;
}

template <class T>
void point_to_cached_values(Walk<T>& walk, std::int64_t start, KeyRange range) {
  const CachedRows& cache = *walk.task.cache;
  const int value_dim = walk.task.value_dim;
  if (cache.v_scales && !cache.by_channel)
    walk.cached.value_scales = copy_scales(cache, cache.v_scales, start, range, walk.rows.scales + kKeyBlock);
  if (cache.element == CachedRows::Element::float32 && in_one_page(cache, start, start + range.end - 1)) {
    walk.values = reinterpret_cast<const T*>(cached_value_row(cache, start, value_dim));
    walk.v_stride = cached_value_stride(cache, value_dim) / static_cast<std::int64_t>(sizeof(T));
    return;
  }
  for (std::int64_t key = range.begin; key < range.end; ++key) {
    T* const to = walk.rows.values + key * value_dim;
    if (const std::byte* const from = cached_value_row(cache, start + key, value_dim))
      load_cached(from, cache.element, value_dim, to);
    else
      std::fill_n(to, value_dim, T(0));
  }
  walk.values = walk.rows.values;
  walk.v_stride = value_dim;
}

// Keys of bfloat16 as they are, width elements a row, an even number; zeros follow those of the head.
template <class T>
MULTIHEAD_NOINLINE void copy_cached_pairs(const Walk<T>& walk, std::int64_t start, KeyRange seen, std::int64_t width,
                                          std::uint16_t* copies) {
  const CachedRows& cache = *walk.task.cache;
  const int head_dim = walk.task.head_dim, pairs = (head_dim + 1) / 2;
  const std::int64_t last = std::min(seen.end, walk.task.kv_len - start);
  if (!cache.blocked) {
    for (std::int64_t key = seen.begin; key < last; ++key) {
      std::uint16_t* const to = copies + key * width;
      const std::byte* const from = cached_key_row(cache, start + key);
      if (from) std::memcpy(to, from, 2 * static_cast<std::size_t>(head_dim));
      std::fill(to + (from ? head_dim : 0), to + width, std::uint16_t{0});
    }
  } else {
    for (std::int64_t first = seen.begin / kCacheBlock * kCacheBlock; first < last; first += kCacheBlock) {
      std::uint16_t* const to = copies + first * width;
      const std::byte* const block = cached_key_block(cache, start + first, head_dim);
      const std::int64_t copied = block ? 2 * pairs : 0;
      for (int p = 0; block && p < pairs; p += kKeyBlock) {
        const int count = std::min(pairs - p, kKeyBlock);
        for (int i = 0; i < count; ++i)
          std::memcpy(walk.rows.scores + i * kRowBlock, block + (p + i) * kCacheBlock * 4, kCacheBlock * 4);
        unpack_panel<float>(walk.rows.scores, kCacheBlock, count, reinterpret_cast<float*>(to) + p, width / 2);
      }
      for (int key = 0; key < kCacheBlock; ++key)
        std::fill(to + key * width + copied, to + (key + 1) * width, std::uint16_t{0});
    }
  }
  for (std::int64_t key = std::max(seen.begin, last); key < seen.end; ++key)
    std::fill_n(copies + key * width, width, std::uint16_t{0});
}

// Values of bfloat16 of some positions and columns, among zeros.
template <int Keys, int Columns>
MULTIHEAD_NOINLINE void copy_cached_edge(const AttentionTask<float>& task, std::int64_t first, std::int64_t keys,
                                         KeyRange columns, std::uint16_t (&edge)[Keys][Columns]) {
  std::memset(edge, 0, sizeof edge);
  for (std::int64_t key = 0; key < keys; ++key)
    if (const std::byte* const row = cached_value_row(*task.cache, first + key, task.value_dim))
      std::memcpy(edge[key], row + 2 * columns.begin, 2 * static_cast<std::size_t>(columns.end - columns.begin));
}

// Cached keys for a tile: element c of key n at keys[n * key_step + c * channel_step].
template <class T>
struct CachedStrip {
  const T* keys;
  std::int64_t key_step, channel_step;
  const T* scales;  // or null
};

// product_tiles() of them.
template <class T, int N, int V>
MULTIHEAD_NOINLINE void cached_score_tile(const CachedStrip<T>& by, const Walk<T>& walk, const KeyStrip& strip,
                                          int lane) {
  Vec<T> sums[N][V];
  clear<T, N, V>(sums);
  accumulate<T, N, 0, V>(sums, by.keys, by.key_step, by.channel_step, walk.rows.q + lane, walk.task.head_dim);
  if (by.scales) {
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      MULTIHEAD_UNROLL
      for (int v = 0; v < V; ++v) sums[n][v] = sums[n][v] * Vec<T>::splat(by.scales[n]);
    }
  }
  put_scores<T, N, V>(sums, scoring_of(walk), walk.rows, lane, strip.key, strip.masked);
}

// The keys from key on.
template <class T>
MULTIHEAD_INLINE CachedStrip<T> cached_strip(const Walk<T>& walk, int key) {
  const T* const scales = walk.cached.key_scales ? walk.cached.key_scales + key : nullptr;
  if (walk.task.cache->blocked)
    return {walk.cached.keys[key / kCacheBlock] + key % kCacheBlock, 1, kCacheBlock, scales};
  return {walk.keys + key * walk.k_stride, walk.k_stride, 1, scales};
}

// product_block() of cached keys and the queries; no strip leaves a block of kCacheBlock.
template <class T>
void cached_score_block(const Walk<T>& walk, const Group& group) {
  const AttentionTask<T>& task = walk.task;
  const bool prefetch = group.first == 0 && task.terms.dense();
  for (int from = group.begin, to; from < group.end; from = to) {
    to = std::min(group.end, (from / kCacheBlock + 1) * kCacheBlock);
    in_strips(from, to, [&]<int N>(int key) {
      if (prefetch && N == kTileBroadcasts) prefetch_terms(walk, group.start, key, N);
      const KeyStrip strip = strip_of(group, key, N, !walk.passes());
      if (strip.low >= strip.high) return;
      const int lane = (group.first + strip.low) * Vec<T>::kLanes;
      by_width(strip.high - strip.low,
               [&]<int V>() { cached_score_tile<T, N, V>(cached_strip(walk, key), walk, strip, lane); });
    });
  }
}

// Weights of the group times the scales of their values, on their way to the values.
template <class T>
MULTIHEAD_NOINLINE void scale_weights(const Walk<T>& walk, const Group& group) {
  const std::int64_t lane = group.first * Vec<T>::kLanes;
  for (std::int64_t key = group.begin; key < group.end; ++key) {
    T* const weights = walk.rows.scores + key * kRowBlock + lane;
    const Vec<T> scale = Vec<T>::splat(walk.cached.value_scales[key]);
    for (int i = 0; i < group.count * Vec<T>::kLanes; i += Vec<T>::kLanes)
      (Vec<T>::load(weights + i) * scale).store(weights + i);
  }
}

// Each line of a panel times the scale of its channel.
template <class T>
MULTIHEAD_NOINLINE void scale_lines(T* panel, int lines, int vecs, const T* scales) {
  for (int line = 0; line < lines; ++line)
    for (int lane = 0; lane < vecs * Vec<T>::kLanes; lane += Vec<T>::kLanes) {
      T* const at = panel + line * kRowBlock + lane;
      (Vec<T>::load(at) * Vec<T>::splat(scales[line])).store(at);
    }
}

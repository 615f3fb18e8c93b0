// SPDX-License-Identifier: Apache-2.0
// A decode task, block by block: products with keys, weights, products with values, merge, and what is left of rows.

// Queries as words of the products: by channel the scales of the keys are theirs.
template <class P>
void load_queries(const DecodeWalk& walk) {
  const DecodeTask& task = walk.task;
  const std::int64_t count = query_words<P>(task.head_dim);
  const bool scaled = task.cache.element == Element::int8 && task.cache.by_channel;
  for (int r = 0; r < task.count; ++r) {
    float* const words = walk.rows.q + r * count;
    words[count - 1] = 0;
    if constexpr (P::kTogether == 2) {
      std::memcpy(words, task.rows[r].q, 2 * static_cast<std::size_t>(task.head_dim));
    } else {
      load_row<float>(task.rows[r].q, task.type, 1, task.head_dim, words);
      for (int c = 0; scaled && c < task.head_dim; ++c) words[c] *= task.cache.k_scales[c];
    }
  }
}

// Products of all rows with the block's keys.
template <class P>
void score_keys(const DecodeWalk& walk) {
  using Staged = DecodeProducts<P::kStaged>;
  const DecodeTask& task = walk.task;
  const std::int64_t words = query_words<P>(task.head_dim), ahead = kCacheBlock * walk.value_row();
  for (const DecodeChunk& chunk : walk.chunks) {
    if (chunk.begin >= chunk.end) continue;
    DecodeRun run{.from = chunk.keys,
                  .line = kCacheBlock * P::kKeyBytes,
                  .steps = key_lines<P>(task.head_dim),
                  .words = walk.rows.q,
                  .word_row = words,
                  .sums = walk.rows.scores + chunk.at,
                  .sum_row = kKeyBlock};
    if (task.cache.blocked) {
      score_chunk<P>(run, task.count, {walk.far ? chunk.values : nullptr, ahead});
    } else {
      stage_keys<P>(walk, chunk);
      run.from = reinterpret_cast<const std::byte*>(walk.rows.panel), run.line = kRowBlock * sizeof(float);
      run.steps = key_lines<Staged>(task.head_dim);
      score_chunk<Staged>(run, task.count, {});
    }
  }
}

// Whether the values of the chunk's keys are finite.
template <class P>
MULTIHEAD_NOINLINE bool chunk_is_finite(const std::byte* values, std::int64_t row, int begin, int end, int columns) {
  using Lanes = Vec<float>;
  Lanes zeros = Lanes::splat(0);
  for (int key = begin; key < end; ++key)
    for (int column = 0; column < columns; column += Lanes::kLanes) {
      const std::byte* const from = values + key * row + column * stored_bytes(P::kElement);
      const Lanes x = column + Lanes::kLanes <= columns ? load_stored<P::kElement>(from)
                                                        : load_stored_first<P::kElement>(from, columns - column);
      zeros = Lanes::fma(x, Lanes::splat(0), zeros);
    }
  return all_zero<float>(zeros);
}

// Adds the keys [begin, end) of the block to the sums of rows [first, first + count). values: of the block's first key,
// or where that would stand. Of a pair that is not whole the other is zero. next: of the same
// chunks of the next block, the first key, or null.
template <class P>
void add_keys(const DecodeWalk& walk, const std::byte* values, std::int64_t row, KeyRange keys, KeyRange rows,
              const std::byte* next) {
  const std::int64_t word_row = kKeyBlock / P::kTogether, columns = walk.rows.columns;
  const float* const words = (P::kTogether == 2 ? walk.rows.words : walk.rows.scores) + rows.begin * word_row;
  const NextBytes ahead = walk.next_bytes(next, (keys.end - keys.begin) / kCacheBlock);
  const auto add = [&](const std::byte* from, std::int64_t line, std::int64_t key, std::int64_t steps) {
    const DecodeRun run{.from = from,
                        .line = line,
                        .steps = steps,
                        .words = words + key / P::kTogether,
                        .word_row = word_row,
                        .sums = walk.rows.block_out + rows.begin * columns,
                        .sum_row = columns};
    output_run<P>(run, static_cast<int>(rows.end - rows.begin), walk.task.value_dim, ahead);
  };
  if constexpr (P::kTogether == 2) {
    const auto* const zeros = reinterpret_cast<const std::byte*>(walk.rows.zeros);
    const auto between = [](const std::byte* from, const std::byte* to) {
      return reinterpret_cast<std::intptr_t>(to) - reinterpret_cast<std::intptr_t>(from);
    };
    if (keys.begin % 2 == 1) {
      add(zeros, between(zeros, values + keys.begin * row), keys.begin, 1);
      if (++keys.begin >= keys.end) return;
    }
    const std::int64_t last = keys.end / 2 * 2;
    if (keys.begin < last) add(values + keys.begin * row, row, keys.begin, (last - keys.begin) / 2);
    if (last < keys.end) add(values + last * row, between(values + last * row, zeros), last, 1);
  } else {
    add(values + keys.begin * row, row, keys.begin, keys.end - keys.begin);
  }
}

// The last chunk of those from one on whose values stand side by side and are seen by every row: a run in which the
// sums stay in registers. As many as L1 holds, where several tiles of rows go over them.
inline int last_of_run(const DecodeWalk& walk, int first, std::int64_t row) {
  constexpr std::int64_t kNear = 32 * 1024;  // bytes
  const std::int64_t bytes = kCacheBlock * row;
  int last = first;
  while (last + 1 < kChunks && walk.chunks[last].whole && walk.chunks[last].values) {
    const DecodeChunk &chunk = walk.chunks[last], &next = walk.chunks[last + 1];
    const bool follows = next.whole && next.begin == chunk.end && next.values == chunk.values + bytes;
    if (!follows || (walk.task.count > kOutputRows && (last + 2 - first) * bytes > kNear)) break;
    ++last;
  }
  return last;
}

// Weighted values of the block, summed from zero. Zero times a value that is not finite is NaN: where a row does not
// see such a key, each row takes the keys that it sees by itself.
template <class P>
void add_values(const DecodeWalk& walk) {
  const int count = walk.task.count;
  std::fill_n(walk.rows.block_out, count * walk.rows.columns, 0.0f);
  for (int i = 0; i < kChunks; ++i) {
    const DecodeChunk& chunk = walk.chunks[i];
    if (chunk.begin >= chunk.end) continue;
    std::int64_t row = 0;
    const int at = chunk.at;
    const std::byte* const values = chunk_values(walk, chunk, row) - at * row;
    if (chunk.whole || P::kElement == Element::int8 ||
        chunk_is_finite<P>(values, row, chunk.begin, chunk.end, walk.task.value_dim)) {
      const std::byte* const next = walk.next_keys[i];
      i = last_of_run(walk, i, row);
      add_keys<P>(walk, values, row, {chunk.begin, walk.chunks[i].end}, {0, count}, next);
      continue;
    }
    for (int r = 0; r < count; ++r) {
      const auto add = [&](int begin, int end) {
        const KeyRange keys{std::max(begin, at), std::min(end, at + kCacheBlock)};
        if (keys.begin < keys.end) add_keys<P>(walk, values, row, keys, {r, r + 1}, nullptr);
      };
      add(0, walk.seen[r].first), add(walk.seen[r].begin, walk.seen[r].end);
    }
  }
}

// Merges the block's maximum, sums and output into those of `count` rows.
MULTIHEAD_NOINLINE void merge_decode(const DecodeRows& rows, int count) {
  using Lanes = Vec<float>;
  for (int lane = 0; lane < count; lane += Lanes::kLanes) {
    const BlockMerge<float> merged = merge_block<float>(rows, lane, Lanes::load(rows.block_sum + lane));
    merge_sum<float>(rows.divisor + lane, merged.old_factor, merged.block_factor,
                     Lanes::load(rows.block_divisor + lane));
  }
  for (int r = 0; r < count; ++r) {
    const Lanes old_factor = Lanes::splat(rows.old_factor[r]), block_factor = Lanes::splat(rows.block_factor[r]);
    float* const out = rows.out + r * rows.columns;
    const float* const block_out = rows.block_out + r * rows.columns;
    for (std::int64_t at = 0; at < rows.columns; at += Lanes::kLanes)
      Lanes::fma(Lanes::load(out + at), old_factor, Lanes::load(block_out + at) * block_factor).store(out + at);
  }
}

// A row before its first key: nothing seen, or the sink alone.
inline void begin_row(const DecodeRows& rows, const DecodeRow& row, int r) {
  rows.max[r] = row.has_sink ? static_cast<float>(row.sink * std::numbers::log2e) : kMinusInfinity<float>;
  rows.sum[r] = rows.divisor[r] = row.has_sink ? 1.0f : 0.0f;
  std::fill_n(rows.out + r * rows.columns, rows.columns, 0.0f);
}

template <class P>
void take_state(const DecodeRows& rows, int r, const float* state, int value_dim) {
  rows.max[r] = state[0], rows.sum[r] = state[1], rows.divisor[r] = state[2];
  std::fill_n(rows.out + r * rows.columns, rows.columns, 0.0f);
  for (int c = 0; c < value_dim; ++c)
    rows.out[r * rows.columns + column_place<P>(c, value_dim)] = state[kDecodeHead + c];
}

template <class P>
void leave_state(float max, float sum, float divisor, const float* out, int value_dim, float* state) {
  state[0] = max, state[1] = sum, state[2] = divisor, state[3] = 0;
  for (int c = 0; c < value_dim; ++c) state[kDecodeHead + c] = out[column_place<P>(c, value_dim)];
}

// The block alone, for a fold: rows that see none of it have the maximum -inf and the sum 0.
template <class P>
void leave_partials(const DecodeWalk& walk, std::int64_t block, bool seen) {
  const DecodeRows& rows = walk.rows;
  const DecodeTask& task = walk.task;
  for (int r = 0; r < task.count; ++r) {
    float* const state = task.rows[r].state + (block - task.first_block) * task.partial_stride;
    const float* const out = rows.block_out + r * rows.columns;
    if (seen && !walk.seen[r].none())
      leave_state<P>(rows.block_max[r], rows.block_sum[r], rows.block_divisor[r], out, task.value_dim, state);
    else
      std::fill_n(state, decode_state_elements(task.value_dim), 0.0f), state[0] = kMinusInfinity<float>;
  }
}

// The sums of a row's columns in their order.
template <class P>
void order_columns(const DecodeRows& rows, int r, int value_dim) {
  if (!P::kSplit) return;
  float* const out = rows.out + r * rows.columns;
  std::copy_n(out, rows.columns, rows.block_out);
  for (int c = 0; c < value_dim; ++c) out[c] = rows.block_out[column_place<P>(c, value_dim)];
}

// Divides a row by its sum, or makes it zero where it sees nothing, and writes it and its lse.
MULTIHEAD_NOINLINE void finish_row(const DecodeRows& rows, const DecodeRow& row, int r, int value_dim, Type type,
                                   const float* channel_scales) {
  using Lanes = Vec<float>;
  const bool empty = row.first == 0 && row.visible.begin >= row.visible.end;
  float one[Lanes::kLanes];
  const Lanes share = Lanes::splat(1) / Lanes::splat(rows.divisor[r]);
  float* const out = rows.out + r * rows.columns;
  for (std::int64_t at = 0; at < rows.columns; at += Lanes::kLanes)
    (empty ? Lanes::splat(0) : Lanes::fma(Lanes::load(out + at), share, Lanes::splat(0))).store(out + at);
  for (int column = 0; channel_scales && column < value_dim; ++column) out[column] *= channel_scales[column];
  if (type == Type::bfloat16)
    narrow<BFloat16>(out, value_dim, row.out);
  else if (type == Type::float16)
    narrow<Float16>(out, value_dim, row.out);
  else
    std::memcpy(row.out, out, sizeof(float) * static_cast<std::size_t>(value_dim));
  if (!row.lse) return;
  Lanes::fma(Lanes::splat(rows.max[r]), Lanes::splat(static_cast<float>(std::numbers::ln2)),
             log<float>(Lanes::splat(rows.sum[r])))
      .store(one);
  const float empty_lse = row.has_sink ? static_cast<float>(row.sink) : kMinusInfinity<float>;
  *row.lse = empty ? empty_lse : one[0];
}

// Lines begin as if their rows saw nothing; those past the last row stay so.
inline void clear_lines(const DecodeRows& rows) {
  for (float* line : {rows.sum, rows.block_sum, rows.divisor, rows.block_divisor}) std::fill_n(line, kRowBlock, 0.0f);
  for (float* line : {rows.max, rows.block_max}) std::fill_n(line, kRowBlock, kMinusInfinity<float>);
}

// The first block after this one, which no row sees, in which a row's range begins.
inline std::int64_t next_block(const DecodeTask& task, std::int64_t block) {
  std::int64_t next = task.last_block;
  for (int r = 0; r < task.count; ++r) {
    const KeyRange& visible = task.rows[r].visible;
    const std::int64_t begins = visible.begin / kKeyBlock;
    if (visible.begin < visible.end && begins > block) next = std::min(next, begins);
  }
  return next;
}

template <class P>
void decode_rows(const DecodeTask& task) noexcept {
  count_task(task.handed_on_by.value_or(kTarget));
  DecodeWalk walk(task);
  const DecodeRows& rows = walk.rows;
  const bool partials = task.leaves == DecodeTask::Leaves::partials;
  clear_lines(rows);
  std::fill_n(rows.zeros, rows.columns, 0.0f);
  load_queries<P>(walk);
  for (int r = 0; r < task.count && !partials; ++r)
    task.begins ? begin_row(rows, task.rows[r], r) : take_state<P>(rows, r, task.rows[r].state, task.value_dim);
  for (std::int64_t block = task.first_block; block < task.last_block; ++block) {
    const std::int64_t start = block * kKeyBlock;
    const bool seen = open_block(walk, start);
    if (seen) {
      load_scales(walk);
      score_keys<P>(walk);
      weigh_keys<P>(walk, start);
      add_values<P>(walk);
    }
    if (partials)
      leave_partials<P>(walk, block, seen);
    else if (seen)
      merge_decode(rows, task.count);
    else
      block = next_block(task, block) - 1;
  }
  const float* const channel_scales =
      task.cache.element == Element::int8 && task.cache.by_channel ? task.cache.v_scales : nullptr;
  for (int r = 0; r < task.count && !partials; ++r) {
    if (task.leaves == DecodeTask::Leaves::state)
      leave_state<P>(rows.max[r], rows.sum[r], rows.divisor[r], rows.out + r * rows.columns, task.value_dim,
                     task.rows[r].state);
    else
      order_columns<P>(rows, r, task.value_dim),
          finish_row(rows, task.rows[r], r, task.value_dim, task.type, channel_scales);
  }
}

inline void decode_fold_task(const DecodeFold& fold) noexcept {
  const DecodeRows rows(fold.scratch, 1, 0, fold.value_dim);
  clear_lines(rows);
  begin_row(rows, fold.row, 0);
  std::fill_n(rows.block_out, rows.columns, 0.0f);
  for (std::int64_t block = 0; block < fold.blocks; ++block) {
    const float* const state = fold.row.state + block * fold.partial_stride;
    rows.block_max[0] = state[0], rows.block_sum[0] = state[1], rows.block_divisor[0] = state[2];
    std::copy_n(state + kDecodeHead, fold.value_dim, rows.block_out);
    merge_decode(rows, 1);
  }
  finish_row(rows, fold.row, 0, fold.value_dim, fold.type, fold.channel_scales);
}

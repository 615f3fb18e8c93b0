// SPDX-License-Identifier: Apache-2.0
// Scores and weights on request, in a second pass, so that asking for them touches nothing of the first: the scores
// again, then, where they are to be normalised, 2^(score - row_max) / row_sum, written row by row.

// Puts a run of one row into every output that was asked for.
template <class T>
void put_weights(const WeightsTask<T>& task, int row, std::int64_t column, std::int64_t count, const T* x) {
  const auto place = [&](const WeightsOutput<T>& output) {
    return output.data + row * output.row_stride + column * output.key_stride;
  };
  if (task.per_head.data)
    for (std::int64_t i = 0; i < count; ++i) place(task.per_head)[i * task.per_head.key_stride] = x[i];
  // A product and a sum, each rounded: the order of heads is fixed by the caller.
  const auto combine = [&](const WeightsOutput<T>& output, auto factor) {
    T* const to = place(output);
    for (std::int64_t i = 0; i < count; ++i) {
      T& sum = to[i * output.key_stride];
      const T term = x[i] * factor(i);
      sum = task.add ? sum + term : term;
    }
  };
  if (task.mean.data) combine(task.mean, [&](std::int64_t) { return task.mean_factor; });
  if (task.norm_weighted.data)
    combine(task.norm_weighted, [&](std::int64_t i) { return task.norms[(column + i) * task.norms_stride]; });
}

// Keys of other sequences, and those past the last valid one.
template <class T>
void put_hidden(const WeightsTask<T>& task, T* line) {
  std::fill_n(line, kKeyBlock, task.hidden);
  for (const KeyRange& outside : {KeyRange{0, task.k_begin}, KeyRange{task.k_begin + task.k_len, task.kv_len}})
    for (std::int64_t column = outside.begin; column < outside.end; column += kKeyBlock)
      for (int row = 0; row < task.attention.rows; ++row)
        put_weights(task, row, column, std::min<std::int64_t>(kKeyBlock, outside.end - column), line);
}

// 2^(score - row_max) / row_sum for one register of rows.
template <class T>
void normalise(const Walk<T>& walk, int vec, int begin, int end) {
  using Lanes = Vec<T>;
  const int lane = vec * Lanes::kLanes;
  // A row that sees nothing, or nothing but scores of -inf, counts from 0.
  const Lanes stored = Lanes::load(walk.rows.max + lane);
  const Lanes max = unless_hidden(stored, stored, Lanes::splat(0));
  const Lanes share = Lanes::splat(1) / Lanes::load(walk.rows.sum + lane);
  for (int key = begin; key < end; ++key) {
    T* const at = walk.rows.scores + key * kRowBlock + lane;
    (exp2_nonpositive<T>(Lanes::load(at) - max) * share).store(at);
  }
}

// Makes zeros of what is no weight: keys that a row does not see, where its sum or maximum makes anything of them, and
// lanes whose block_factor is not 1.
template <class T>
MULTIHEAD_NOINLINE void drop_hidden(const RowState<T>& rows, int lane, int begin, int end) {
  using Lanes = Vec<T>;
  const Lanes zero = Lanes::splat(0);
  const auto live = Lanes::load(rows.block_factor + lane) == Lanes::splat(1);
  for (int key = begin; key < end; ++key) {
    T* const at = rows.scores + key * kRowBlock + lane;
    Lanes weight = Lanes::select(live, Lanes::load(at), zero);
    if (rows.lows) weight = unless_hidden(Lanes::load(rows.bias + key * kRowBlock + lane), weight, zero);
    Lanes::select(seen_by_masks(rows, lane, key), weight, zero).store(at);
  }
}

// The scores of a block as rows in staged; what a row does not see is hidden.
template <class T>
void weights_block(const WeightsTask<T>& task, Walk<T>& walk, std::int64_t start, KeyRange seen,
                   const bool (&careful)[kMaxVecs]) {
  const AttentionTask<T>& attention = task.attention;
  const RowState<T>& rows = walk.rows;
  const bool terms = walk.terms();
  if (terms && !open_terms(walk, start, seen)) {
    std::fill_n(rows.staged, kRowBlock * kKeyBlock, task.hidden);
    return;
  }
  walk.set_ranges(start);
  walk.set_keys(start, seen);
  each_group(walk, start, [&](const Group& group) {
    if (group.begin >= group.end) return;
    score_block(walk, group);
    if (terms) terms_block(walk, group);
    for (int vec = group.first; task.normalised && vec < group.first + group.count; ++vec) {
      normalise(walk, vec, group.begin, group.end);
      if (careful[vec]) drop_hidden(rows, vec * Vec<T>::kLanes, group.begin, group.end);
    }
  });
  unpack_panel<T>(rows.scores + seen.begin * kRowBlock, attention.rows, seen.end - seen.begin, rows.staged + seen.begin,
                  kKeyBlock);
  for (int row = 0; row < attention.rows; ++row) {
    const KeyRange range = walk.row_keys(row, start);
    T* const line = rows.staged + row * kKeyBlock;
    std::fill(line, line + range.begin, task.hidden);
    std::fill(line + range.end, line + kKeyBlock, task.hidden);
  }
}

template <class T>
void weights_task(const WeightsTask<T>& task) noexcept {
  const AttentionTask<T>& attention = task.attention;
  Walk<T> walk(attention);
  const RowState<T>& rows = walk.rows;
  pack_queries(attention, rows);
  start_rows(walk);
  // The registers of rows of which one has no softmax: a sum of 0, or NaN. Ranges hide without a look at the scores.
  bool careful[kMaxVecs] = {};
  if (task.normalised)
    for (int row = 0; row < walk.vecs * Vec<T>::kLanes; ++row) {
      const int stored = std::min(row, attention.rows - 1);
      rows.max[row] = attention.row_max[stored], rows.sum[row] = attention.row_sum[stored];
      rows.block_factor[row] = 1;
      const T share = T(1) / rows.sum[row];
      careful[row / Vec<T>::kLanes] |= (attention.terms.dense() || attention.terms.first > 0) &&
                                       (!(share - share == 0) || rows.max[row] != rows.max[row]);
    }
  put_hidden(task, rows.staged);
  for (std::int64_t start = 0; start < task.k_len; start += kKeyBlock) {
    walk.enter(start);
    const KeyRange seen = walk.block_keys(start);
    if (seen.begin >= seen.end)
      std::fill_n(rows.staged, kRowBlock * kKeyBlock, task.hidden);
    else
      weights_block(task, walk, start, seen, careful);
    const std::int64_t count = std::min<std::int64_t>(kKeyBlock, task.k_len - start);
    for (int row = 0; row < attention.rows; ++row)
      put_weights(task, row, task.k_begin + start, count, rows.staged + row * kKeyBlock);
  }
}

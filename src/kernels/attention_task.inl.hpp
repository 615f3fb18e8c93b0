// SPDX-License-Identifier: Apache-2.0
// An attention task, block by block and register by register: scores, terms, softmax, output.

// Packs the queries of the task as floats, widening those that are stored in two bytes.
template <class T>
void pack_query_panel(const AttentionTask<T>& task, const RowState<T>& rows) {
  if (task.q.type == kTypeOf<T>)
    return pack_panel<T>(static_cast<const T*>(task.q.data), task.q.stride, task.rows, task.head_dim, rows.q);
  for (int row = 0; row < task.rows; ++row)
    load_row<T>(element(task.q.data, task.q.type, row * task.q.stride), task.q.type, 1, task.head_dim,
                rows.keys + row * task.head_dim);
  pack_panel<T>(rows.keys, task.head_dim, task.rows, task.head_dim, rows.q);
}

template <class T>
void pack_queries(const AttentionTask<T>& task, const RowState<T>& rows) {
  if constexpr (kPairs)
    pack_query_pairs(task, rows);
  else
    pack_query_panel(task, rows);
  if constexpr (sizeof(T) == sizeof(float))
    if (task.cache && task.cache->by_channel)
      scale_lines(rows.q, task.head_dim, (task.rows + Vec<T>::kLanes - 1) / Vec<T>::kLanes, task.cache->k_scales);
}

// Writes the panel of outputs, rounding to two bytes where they are stored so.
template <class T>
void write_output(const AttentionTask<T>& task, const RowState<T>& rows, const PanelFactors<T>& by) {
  if (task.needs.type == kTypeOf<T>)
    return unpack_panel<T>(rows.out, task.rows, task.value_dim, static_cast<T*>(task.out), task.out_stride, by);
  unpack_panel<T>(rows.out, task.rows, task.value_dim, rows.values, task.value_dim, by);
  for (int row = 0; row < task.rows; ++row) {
    const T* const from = rows.values + row * task.value_dim;
    void* const to = static_cast<char*>(task.out) + row * task.out_stride * 2;
    if (task.needs.type == Type::bfloat16)
      narrow<BFloat16>(from, task.value_dim, to);
    else
      narrow<Float16>(from, task.value_dim, to);
  }
}

// Asks for `count` rows, from one on, of width elements of so many bytes: to be read, or written.
template <bool kWrite = false>
MULTIHEAD_INLINE void prefetch_rows(const void* rows, std::size_t size, std::int64_t stride, int width, int count) {
  const auto bytes = static_cast<std::int64_t>(size);
  for (int row = 0; row < count; ++row) {
    const char* const from = static_cast<const char*>(rows) + row * stride * bytes;
    for (std::int64_t at = 0; at < width * bytes; at += kLineBytes) __builtin_prefetch(from + at, kWrite, 3);
  }
}

// While keys of the block are multiplied: their rows of values, which are read by columns, and those of the next
// block's keys, the first and the last group each a share, so that the requests are spread over the products.
template <class T>
MULTIHEAD_INLINE void prefetch_far(const Walk<T>& walk, const Group& group, int key, int count) {
  if (group.first == 0)
    prefetch_rows(walk.values + key * walk.v_stride, sizeof(T), walk.v_stride, walk.task.value_dim, count);
  const std::int64_t next = group.start + kKeyBlock + key;
  if (group.first + group.count == walk.vecs && next + count <= walk.far_end)
    prefetch_rows(walk.keys + (kKeyBlock + key) * walk.k_stride, sizeof(T), walk.k_stride, walk.task.head_dim, count);
}

constexpr int kAskedTogether = 16;  // keys multiplied between requests for what is needed later

// Scores of the group for the block's keys, in runs of tiles that are alike: from a product to rows.scores.
template <class T, class Product>
void product_block(const Walk<T>& walk, const RowState<T>& rows, const Product& product, const Scoring<T>& scoring,
                   const Group& group) {
  const bool ask_terms = group.first == 0 && walk.task.terms.dense(), ask_far = walk.far_end > 0;
  for (int key = group.begin; key < group.end;) {
    const int most = ask_terms || ask_far ? std::min(key + kAskedTogether, group.end) : group.end;
    const auto [strip, end] = run_of(group, key, most, scoring.terms);
    if (ask_terms) prefetch_terms(walk, group.start, key, end - key);
    if (ask_far) prefetch_far(walk, group, key, end - key);
    const KeyRange keys{key, end};
    if (strip.low < strip.high) {
      const int lane = (group.first + strip.low) * Vec<T>::kLanes;
      const ScoresTo<T> place{rows, scoring, strip.masked};
      by_width(strip.high - strip.low, [&]<int V>() { product_run<T, V>(product, place, lane, keys); });
    }
    key = end;
  }
}

// Scores of the group for the block's keys.
template <class T>
void score_block(const Walk<T>& walk, const Group& group) {
  if constexpr (kPairs) return pair_score_block(walk, group);
  const auto& task = walk.task;
  if constexpr (sizeof(T) == sizeof(float))
    if (task.cache) return cached_score_block(walk, group);
  product_block(walk, walk.rows, PanelProduct<T>{walk.keys, walk.k_stride, task.head_dim, walk.rows.q},
                scoring_of(walk), group);
}

// What is left to do for terms when the group's scores are put; all: these are scaled products yet.
template <class T>
void terms_block(const Walk<T>& walk, const Group& group, bool all = false) {
  for (int vec = group.first; vec < group.first + group.count; ++vec) {
    const int begin = walk.block_begin(vec, group.start), end = walk.block_end(vec, group.start);
    if (begin >= end) continue;
    if (all || walk.passes()) apply_terms(walk, vec, group.start, begin, end);
    if (walk.task.terms.dense()) note_seen(walk.rows, vec * Vec<T>::kLanes, begin, end);
  }
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

// Weights of the group times the factors of dropout, on their way to the values.
template <class T>
MULTIHEAD_NOINLINE void drop_block(const Walk<T>& walk, const Group& group) {
  const std::int64_t lane = group.first * Vec<T>::kLanes;
  for (std::int64_t key = group.begin; key < group.end; ++key) {
    T* const weights = walk.rows.scores + key * kRowBlock + lane;
    const T* const factors = walk.rows.dropout + key * kRowBlock + lane;
    for (int i = 0; i < group.count * Vec<T>::kLanes; i += Vec<T>::kLanes)
      (Vec<T>::load(weights + i) * Vec<T>::load(factors + i)).store(weights + i);
  }
}

// Whether every valid value of the block is finite; found once for the tasks that one worker does on a head.
template <class T>
bool block_is_finite(const Walk<T>& walk, std::int64_t start) {
  const AttentionTask<T>& task = walk.task;
  if (task.finite_entries == 0) return false;
  const std::uint64_t id = task.first_block_id + static_cast<std::uint64_t>(start);
  std::uint64_t& known = task.finite[id / kKeyBlock % static_cast<std::uint64_t>(task.finite_entries)];
  if (known >> 1 != id + 1) {
    const int count = static_cast<int>(std::min<std::int64_t>(kKeyBlock, task.kv_len - start));
    known = (id + 1) << 1 | (all_finite(walk.values, walk.v_stride, count, task.value_dim) ? 1u : 0u);
  }
  return known & 1;
}

// The block's values times the weights of the group, by multiply-adds.
template <class T>
void multiply_values(const Walk<T>& walk, const Group& group) {
  const auto& task = walk.task;
  const T* const v = walk.values;
  bool partial = task.terms.dense();
  for (int i = 0; i < group.count; ++i) partial |= !walk.all_see(group.first + i, group.start, group.begin, group.end);
  if (partial && !block_is_finite(walk, group.start) &&
      !all_finite(v + group.begin * walk.v_stride, walk.v_stride, group.end - group.begin, task.value_dim)) {
    for (int i = 0; i < group.count; ++i)
      output_careful(walk, (group.first + i) * Vec<T>::kLanes, group.begin, group.end);
    return;
  }
  output_run(ValueProducts<T>{v, walk.v_stride, walk.rows.scores + group.first * Vec<T>::kLanes}, walk.rows,
             group.first * Vec<T>::kLanes, task.value_dim, segments_of(group, 1));
}

template <class T>
void output_block(const Walk<T>& walk, const Group& group) {
  if constexpr (kPairs)
    pair_output_block(walk, group);
  else
    multiply_values(walk, group);
}

// Which rows of a register see a key, where ranges say so.
template <class T>
void find_rows(const Walk<T>& walk, int lane) {
  const VecRange& all = walk.ranges[lane / Vec<T>::kLanes];
  T* const found = walk.rows.found + lane;
  if (walk.task.terms.first == 0 && all.all_begin < all.all_end) return Vec<T>::splat(1).store(found);
  for (int i = 0; i < Vec<T>::kLanes; ++i) {
    const KeyRange& range = walk.visible(lane + i);
    found[i] = range.begin < range.end ? T(1) : T(0);
  }
}

// Divides by the sum, makes rows that see no key zero, writes rows, lse, and what the weights need.
template <class T>
void finish(const Walk<T>& walk) {
  using Lanes = Vec<T>;
  const auto& task = walk.task;
  const RowState<T>& rows = walk.rows;
  const T* const sums = walk.pairs.sums ? walk.pairs.sums : rows.sum;
  T* const shares = rows.block_factor;  // no block is left to merge
  const T empty_lse = task.has_sink ? static_cast<T>(task.sink) : kMinusInfinity<T>;
  for (int lane = 0; lane < walk.vecs * Lanes::kLanes; lane += Lanes::kLanes) {
    T* const found = rows.found + lane;
    if (!task.terms.dense()) find_rows(walk, lane);
    const Lanes sum = Lanes::load(rows.sum + lane);
    if (task.terms.by_key)  // what it makes -inf weighs nothing, and a row of nothing else sees none
      Lanes::select(sum == Lanes::splat(0), Lanes::splat(0), Lanes::load(found)).store(found);
    const auto empty = Lanes::load(found) == Lanes::splat(0);
    Lanes::select(empty, Lanes::splat(1), Lanes::splat(1) / Lanes::load(sums + lane)).store(shares + lane);
    for (int column = 0; Lanes::any(empty) && column < task.value_dim; ++column) {
      T* out = rows.out + column * kRowBlock + lane;
      Lanes::select(empty, Lanes::splat(0), Lanes::load(out)).store(out);
    }
    if (task.lse) {
      const Lanes lse =
          Lanes::fma(Lanes::load(rows.max + lane), Lanes::splat(static_cast<T>(std::numbers::ln2)), log<T>(sum));
      Lanes::select(empty, Lanes::splat(empty_lse), lse).store(rows.end + lane);
    }
    Lanes::select(empty, Lanes::splat(1), sum).store(rows.sum + lane);
  }
  PanelFactors<T> by{shares};
  if constexpr (sizeof(T) == sizeof(float))
    if (task.cache && task.cache->by_channel) by.columns = task.cache->v_scales;
  if (task.out) write_output(task, rows, by);
  for (int row = 0; row < task.rows; ++row) {
    if (task.lse) task.lse[row * task.lse_stride] = rows.end[row];
    if (task.row_max) task.row_max[row] = rows.max[row];
    if (task.row_sum) task.row_sum[row] = rows.sum[row];
  }
}

// The state before the first key: nothing seen, or the sink alone, whose weight joins the sum.
template <class T>
void start_rows(const Walk<T>& walk) {
  const RowState<T>& rows = walk.rows;
  const AttentionTask<T>& task = walk.task;
  const int lanes = walk.vecs * Vec<T>::kLanes;
  const T max = task.has_sink ? static_cast<T>(task.sink * std::numbers::log2e) : kMinusInfinity<T>;
  for (int lane = 0; lane < lanes; ++lane) {
    rows.max[lane] = max;
    rows.sum[lane] = task.has_sink ? T(1) : T(0);
    rows.found[lane] = 0;
  }
  for (int column = 0; column < task.value_dim; ++column) std::fill_n(rows.out + column * kRowBlock, lanes, T(0));
}

// Before the first of a task's keys.
template <class T>
void open_task(const Walk<T>& walk) {
  const AttentionTask<T>& task = walk.task;
  count_task(task.handed_on_by.value_or(kTarget));
  prefetch_rows(task.q.data, size_of(task.q.type), task.q.stride, task.head_dim, task.rows);
  start_rows(walk);  // while the queries are on their way
  pack_queries(task, walk.rows);
}

// The keys of the part at hand that some row sees.
template <class T>
KeyRange keys_of_part(const Walk<T>& walk) {
  const AttentionTask<T>& task = walk.task;
  const KeyRange keys = keys_of(walk);
  if (!task.in_parts) return keys;
  const std::int64_t first = task.first_kept() * kKeyBlock;
  return {std::max(keys.begin, first), std::min(keys.end, first + task.kept_blocks * kKeyBlock)};
}

// Asks for the lines that the rows will be written to, while there is other work.
template <class T>
MULTIHEAD_INLINE void prefetch_output(const AttentionTask<T>& task) {
  prefetch_rows<true>(task.out, size_of(task.needs.type), task.out_stride, task.value_dim, task.rows);
}

template <class T>
void attention_task(const AttentionTask<T>& task) noexcept {
  using Lanes = Vec<T>;
  Walk<T> walk(task);
  const RowState<T>& rows = walk.rows;
  const bool drops = task.out && task.dropout.any();
  const StatisticsRows<T> statistics(walk);
  if (task.part == 0) open_task(walk);
  if constexpr (kPairs) start_pairs(walk);
  if (task.statistics) start_statistics(walk, statistics);
  const KeyRange keys = keys_of_part(walk);
  for (std::int64_t start = keys.begin / kKeyBlock * kKeyBlock; start < keys.end; start = walk.block_after(start)) {
    walk.enter(start);
    const bool terms = walk.terms();
    const KeyRange seen = walk.block_keys(start);
    if (seen.begin >= seen.end) continue;
    if (task.out && !task.pauses && start + kKeyBlock >= keys.end) prefetch_output(task);
    if (terms && !open_terms(walk, start, seen)) continue;
    if (task.terms.dense() || !walk.all_see(start)) walk.set_ranges(start);
    walk.set_keys(start, seen);
    if (task.out) walk.set_values(start, seen);
    if (drops)
      draw_factors(task.dropout, start, static_cast<int>(seen.begin), static_cast<int>(seen.end), task.rows,
                   rows.dropout);
    if (task.statistics) open_statistics(walk, statistics, start, seen);
    each_group(walk, start, [&](const Group& group) {
      if (group.begin >= group.end) return;
      std::fill_n(rows.block_max + group.first * Lanes::kLanes, group.count * Lanes::kLanes, kMinusInfinity<T>);
      score_block(walk, group);
      if (terms) terms_block(walk, group);
      if (task.statistics)
        statistics_block(walk, statistics, group);
      else
        softmax_block(walk, group);
      if (drops) drop_block(walk, group);
      if (walk.cached.value_scales) scale_weights(walk, group);
      if (task.out) output_block(walk, group);
    });
  }
  if (task.pauses) return;
  finish(walk);
  if (task.statistics) finish_statistics(walk, statistics);
}

// SPDX-License-Identifier: Apache-2.0
// A step of the backward pass from its memory to its gradients: rows, weights, terms, products.

// Rows as T, width elements apart, zeros after the last column.
template <class T>
MULTIHEAD_NOINLINE void read_rows(const StoredRows& stored, int rows, int columns, std::int64_t width, T* to) {
  using V = Vec<T>;
  for (int row = 0; row < rows; ++row, to += width) {
    const void* const from = element(stored.data, stored.type, row * stored.stride);
    int column = 0;
    if (stored.type == kTypeOf<T>) {
      const T* const plain = static_cast<const T*>(from);
      for (; column + V::kLanes <= columns; column += V::kLanes) V::load(plain + column).store(to + column);
      for (; column < columns; ++column) to[column] = plain[column];
    } else {
      load_row<T>(from, stored.type, 1, columns, to);
    }
    for (column = columns; column < width; ++column) to[column] = 0;
  }
}

// Rows in whole registers, stride elements apart.
template <class T>
struct WholeRows {
  const T* at;
  std::int64_t stride;
};

// Rows where they are stored, if they are of T and end with a register; else a copy, width elements apart.
template <class T>
WholeRows<T> whole_rows(const StoredRows& stored, int columns, const T* copy, std::int64_t width) {
  if (!kPairs && stored.type == kTypeOf<T> && columns % kSumChains == 0)
    return {static_cast<const T*>(stored.data), stored.stride};
  return {copy, width};
}

// The same, read first where it is a copy.
template <class T>
WholeRows<T> read_whole_rows(const StoredRows& stored, int rows, int columns, std::int64_t width, T* copy) {
  const WholeRows<T> whole = whole_rows<T>(stored, columns, copy, width);
  if (whole.at == copy) read_rows<T>(stored, rows, columns, width, copy);
  return whole;
}

// The block's keys and values, for all its steps.
template <class T>
void open_keys(const BackwardTask<T>& task, const BackwardRows<T>& rows) {
  if constexpr (kPairs) return open_key_pairs(task, rows);
  const AttentionTask<T>& attention = task.attention;
  const auto block = [&](const StoredRows& all) {
    return StoredRows{element(all.data, all.type, task.key * all.stride), all.stride, all.type};
  };
  const auto count = static_cast<int>(std::min<std::int64_t>(kKeyBlock, attention.kv_len - task.key));
  read_rows<T>(block(attention.k), count, attention.head_dim, rows.q_width, rows.keys);
  if (task.wants_scores) read_rows<T>(block(attention.v), count, attention.value_dim, rows.v_width, rows.values);
  *rows.keys_finite = all_finite(rows.keys, rows.q_width, count, attention.head_dim) ? T(1) : T(0);
}

// The step's queries and what comes from above, row by row.
template <class T>
WholeRows<T> queries_of(const BackwardTask<T>& task, const BackwardRows<T>& rows) {
  return whole_rows<T>(task.attention.q, task.attention.head_dim, rows.q, rows.q_width);
}
template <class T>
WholeRows<T> upward_of(const BackwardTask<T>& task, const BackwardRows<T>& rows) {
  return whole_rows<T>(task.d_out, task.attention.value_dim, rows.d_out, rows.v_width);
}

// Reads them, and packs both as panels.
template <class T>
void read_queries(const BackwardTask<T>& task, const RowState<T>& state, const BackwardRows<T>& rows) {
  const AttentionTask<T>& attention = task.attention;
  T* const panel = kTiles ? rows.panels : state.q;
  T* const upward = !task.wants_scores ? nullptr : kTiles ? panel + rows.q_width / 2 * kRowBlock : state.out;
  if constexpr (kPairs) {
    const bool q = read_query_pairs(attention.q, attention.rows, attention.head_dim, rows.q_width, rows.q, panel);
    const bool d = read_query_pairs(task.d_out, attention.rows, attention.value_dim, rows.v_width, rows.d_out, upward);
    *rows.rows_finite = q && d ? T(1) : T(0);
  } else {
    const WholeRows<T> q = read_whole_rows<T>(attention.q, attention.rows, attention.head_dim, rows.q_width, rows.q);
    const WholeRows<T> d =
        read_whole_rows<T>(task.d_out, attention.rows, attention.value_dim, rows.v_width, rows.d_out);
    pack_panel<T>(q.at, q.stride, attention.rows, attention.head_dim, panel);
    if (upward) pack_panel<T>(d.at, d.stride, attention.rows, attention.value_dim, upward);
  }
  for (int row = 0; row < kRowBlock; ++row) {
    const bool is_row = row < attention.rows;
    rows.lse[row] = is_row ? task.lse[row * task.lse_stride] : T(0);
    rows.term[row] = is_row ? task.row_terms[row] : T(0);
    state.found[row] = 0, state.block_max[row] = 0;
  }
}

// dS |position - key| of a register, summed along the keys.
template <class T>
MULTIHEAD_NOINLINE Vec<T> sum_by_slope(const RowState<T>& state, const BackwardRows<T>& rows, int lane, KeyRange seen) {
  using Lanes = Vec<T>;
  const Lanes place = Lanes::load(state.place + lane);
  Lanes sum = Lanes::splat(0);
  for (auto key = static_cast<int>(seen.begin); key < seen.end; ++key) {
    const Lanes distance = magnitude_of<T>(place - Lanes::splat(static_cast<T>(key)));
    sum = Lanes::fma(Lanes::load(rows.products + key * kRowBlock + lane), distance, sum);
  }
  return sum;
}

template <class T>
void add_to_slope(const BackwardTask<T>& task, const Walk<T>& walk, const BackwardRows<T>& rows, KeyRange seen) {
  for (int row = 0; row < walk.vecs * Vec<T>::kLanes; ++row)
    walk.rows.place[row] = static_cast<T>(task.attention.terms.position - task.key + row);
  T sums[kRowBlock];
  for (int lane = 0; lane < walk.vecs * Vec<T>::kLanes; lane += Vec<T>::kLanes)
    sum_by_slope(walk.rows, rows, lane, seen).store(sums + lane);
  for (int row = 0; row < task.attention.rows; ++row) *task.slope -= static_cast<double>(sums[row]);
}

// dS summed by distance, a line of rows backwards as it was added, then by bucket.
template <class T>
MULTIHEAD_NOINLINE void add_to_table(const BackwardTask<T>& task, const Walk<T>& walk, const BackwardRows<T>& rows,
                                     KeyRange seen) {
  using Lanes = Vec<T>;
  const ScoreTerms<T>& terms = task.attention.terms;
  std::fill_n(rows.by_distance, kDistanceLines * kRowBlock, T(0));
  for (auto key = static_cast<int>(seen.begin); key < seen.end; ++key) {
    T* const line = rows.products + key * kRowBlock;
    for (int row = task.attention.rows; row < walk.vecs * Lanes::kLanes; ++row) line[row] = 0;
    T* const to = rows.by_distance + kKeyBlock - 1 - key;
    for (int lane = 0; lane < walk.vecs * Lanes::kLanes; lane += Lanes::kLanes)
      (Lanes::load(to + lane) + Lanes::load(line + lane)).store(to + lane);
  }
  const std::int64_t nearest = task.key - terms.position + kKeyBlock - 1;
  for (int i = 0; i < kKeyBlock - 1 + task.attention.rows; ++i) {
    const std::int64_t distance = std::clamp<std::int64_t>(nearest - i, -terms.max_distance, terms.max_distance);
    task.table[task.buckets[distance + terms.max_distance]] += static_cast<double>(rows.by_distance[i]);
  }
}

// dS by rows of the bias, those that are summed over first.
template <class T>
MULTIHEAD_NOINLINE void add_to_bias(const BackwardTask<T>& task, const RowState<T>& state, const BackwardRows<T>& rows,
                                    KeyRange seen) {
  const BiasGradient<T>& bias = task.bias;
  int count = task.attention.rows;
  unpack_panel<T>(rows.products + seen.begin * kRowBlock, count, seen.end - seen.begin, state.staged + seen.begin,
                  kKeyBlock);
  for (; bias.sums_rows && count > 1; --count)  // row 0 gets row 1, then 2 ..
    for (auto key = seen.begin; key < seen.end; ++key)
      state.staged[key] += state.staged[(task.attention.rows - count + 1) * kKeyBlock + key];
  for (int row = 0; row < count; ++row) {
    const T* const from = state.staged + row * kKeyBlock;
    T* const to = bias.data + row * bias.row_stride;
    if (bias.sums_keys) {
      T sum = 0;
      for (auto key = seen.begin; key < seen.end; ++key) sum += from[key];
      *to += sum;
    } else if (bias.key_stride == 1) {
      for (auto key = seen.begin; key < seen.end; ++key) to[key] += from[key];
    } else {
      for (auto key = seen.begin; key < seen.end; ++key) to[key * bias.key_stride] += from[key];
    }
  }
}

// S of the group's rows and the block's keys.
template <class T>
void score_group(const Walk<T>& walk, const BackwardRows<T>& rows, const Group& group) {
  const AttentionTask<T>& task = walk.task;
  if constexpr (kTiles)
    score_tiles(walk, rows, group);
  else if constexpr (kPairs)
    pair_score_group(walk, group);
  else
    product_group<T>(group, PanelProduct<T>{walk.keys, walk.k_stride, task.head_dim, walk.rows.q},
                     ProductsTo<T, true>{walk.rows.scores, task.scale});
}

// dP of the group's rows and the block's values.
template <class T>
void upward_group(const Walk<T>& walk, const BackwardRows<T>& rows, const Group& group) {
  if constexpr (kTiles)
    upward_tiles(walk, rows, group);
  else if constexpr (kPairs)
    pair_upward_block(walk, rows, group);
  else
    product_group<T>(group, PanelProduct<T>{rows.values, rows.v_width, walk.task.value_dim, walk.rows.out},
                     ProductsTo<T, false>{rows.products, T(1)});
}

// P Z and dx of every pair of the step; on the way, what goes by dS. Returns whether some pair of those seen is hidden.
template <class T>
bool weigh_step(const BackwardTask<T>& task, const Walk<T>& walk, const BackwardRows<T>& rows, KeyRange seen) {
  const AttentionTask<T>& attention = task.attention;
  const bool dense = attention.terms.dense(), terms = walk.terms();
  const RowState<T>& state = walk.rows;
  bool hides_any = false;
  each_group(walk, task.key, [&](const Group& group) {
    const int first = group.first;
    if (group.begin < group.end) {
      score_group(walk, rows, group);
      for (int vec = first; rows.cap_slopes && vec < first + group.count; ++vec)
        cap_slopes(walk, rows, vec * Vec<T>::kLanes, walk.block_begin(vec, task.key), walk.block_end(vec, task.key));
      if (terms) terms_block(walk, group, !kTiles);
      if (task.wants_scores) upward_group(walk, rows, group);
    }
    for (int vec = first; vec < first + group.count; ++vec) {
      const int lane = vec * Vec<T>::kLanes;
      KeyRange keys{walk.block_begin(vec, task.key), walk.block_end(vec, task.key)};
      if (keys.begin >= keys.end) keys = {seen.begin, seen.begin};
      const bool hides =
          dense || !walk.all_see(vec, task.key, static_cast<int>(seen.begin), static_cast<int>(seen.end));
      const StepLanes<T> step{Vec<T>::load(rows.lse + lane),
                              Vec<T>::load(rows.term + lane),
                              hides,
                              attention.dropout.any(),
                              task.wants_scores,
                              terms ? T(1) : attention.scale};
      weigh(state, rows, step, lane, keys, seen);
      hides_any |= hides;
    }
  });
  if (task.bias.data) add_to_bias(task, state, rows, seen);
  if (task.slope) add_to_slope(task, walk, rows, seen);
  if (task.table) add_to_table(task, walk, rows, seen);
  for (int vec = 0; rows.cap_slopes && task.wants_scores && vec < walk.vecs; ++vec) uncap(walk, rows, task.key, vec);
  return hides_any;
}

// Products whose factors are not finite while a pair is hidden take the careful way.
template <class T>
bool step_is_finite(const BackwardTask<T>& task, const BackwardRows<T>& rows) {
  const AttentionTask<T>& attention = task.attention;
  if constexpr (kPairs) return *rows.keys_finite != 0 && *rows.rows_finite != 0;
  const WholeRows<T> q = queries_of(task, rows), d = upward_of(task, rows);
  return *rows.keys_finite != 0 && all_finite(q.at, q.stride, attention.rows, attention.head_dim) &&
         all_finite(d.at, d.stride, attention.rows, attention.value_dim);
}

template <class T, bool kByKey>
void multiply(const Walk<T>& walk, const BackwardRows<T>& rows, const BackwardTask<T>& task, KeyRange seen,
              const GradientProduct<T>& product, const Strips* strips) {
  if (!product.c) return;
  if constexpr (kTiles)
    multiply_gradient<T, kByKey>(walk, rows, {task.key, seen, strips == nullptr}, product);
  else if (strips)
    multiply_strips<T, kByKey>(product, *strips);
  else
    multiply_careful<T, kByKey>(walk, task.key, seen, product);
}

template <class T>
GradientFactors<T> factors_of(const BackwardTask<T>& task, const RowState<T>& state, const BackwardRows<T>& rows,
                              KeyRange seen) {
  if constexpr (kPairs) return round_factors(task, state, rows, seen);
  return {state.scores, rows.products, rows.products};
}

// What is added to the gradients of values, keys and queries.
template <class T>
struct StepProducts {
  GradientProduct<T> values, keys, queries;
};
template <class T>
StepProducts<T> products_of(const BackwardTask<T>& task, const BackwardRows<T>& rows, const GradientFactors<T>& by) {
  const AttentionTask<T>& attention = task.attention;
  const std::int64_t q_width = padded_width(attention.head_dim), v_width = padded_width(attention.value_dim);
  const WholeRows<T> q = queries_of(task, rows), d = upward_of(task, rows);
  const auto next = [&](const StoredRows& all) {
    return StoredRows{element(all.data, all.type, attention.rows * all.stride), all.stride, all.type};
  };
  return {{by.values, d.at, d.stride, task.d_v, v_width, static_cast<int>(v_width), next(task.d_out)},
          {by.keys, q.at, q.stride, task.d_k, q_width, static_cast<int>(q_width), next(attention.q)},
          {by.queries, rows.keys, rows.q_width, task.d_q, task.d_q_stride, attention.head_dim}};
}

// What the step adds to the gradients.
template <class T>
void multiply_step(const BackwardTask<T>& task, const Walk<T>& walk, const BackwardRows<T>& rows, KeyRange seen,
                   bool hides) {
  const AttentionTask<T>& attention = task.attention;
  const auto row_keys = [&](int row) { return walk.row_keys(row, task.key); };
  // The rows that see one of the keys, and the keys that one of the rows sees.
  const auto rows_of = [&](int key, int count) {
    KeyRange found{0, attention.rows};
    const auto sees = [&](std::int64_t row) {
      const KeyRange keys = row_keys(static_cast<int>(row));
      return keys.begin < key + count && keys.end > key;
    };
    while (hides && found.begin < found.end && !sees(found.begin)) ++found.begin;
    while (hides && found.begin < found.end && !sees(found.end - 1)) --found.end;
    return found;
  };
  const auto keys_of_rows = [&](int row, int count) {
    if (!hides) return seen;
    KeyRange found{kKeyBlock, 0};
    for (int r = row; r < row + count; ++r) {
      const KeyRange keys = row_keys(r);
      if (keys.begin >= keys.end) continue;
      found = {std::min(found.begin, keys.begin), std::max(found.end, keys.end)};
    }
    return found;
  };
  Strips by_key, by_row;
  // A pair may have a partner that no row sees.
  const bool parts = seen.begin % kGradientInner != 0 || seen.end % kGradientInner != 0;
  const bool careful = (hides || parts) && !step_is_finite(task, rows);
  if (!careful && !kTiles) {
    cut_strips(static_cast<int>(seen.begin), static_cast<int>(seen.end), rows_of, by_key);
    if (task.d_q) cut_strips(0, attention.rows, keys_of_rows, by_row);
  }
  const Strips *const along_rows = careful ? nullptr : &by_key, *const along_keys = careful ? nullptr : &by_row;
  const StepProducts<T> products = products_of(task, rows, factors_of(task, walk.rows, rows, seen));
  multiply<T, true>(walk, rows, task, seen, products.values, along_rows);
  multiply<T, true>(walk, rows, task, seen, products.keys, along_rows);
  multiply<T, false>(walk, rows, task, seen, products.queries, along_keys);
}

template <class T>
void backward_task(const BackwardTask<T>& task) noexcept {
  const AttentionTask<T>& attention = task.attention;
  Walk<T> walk(attention);
  const BackwardRows<T> rows(task);
  if (task.opens) {
    count_task(attention.handed_on_by.value_or(kTarget));
    open_keys(task, rows);
  }
  if constexpr (kPairs)
    walk.pairs.keys = stored_behind(rows.keys, kKeyBlock, rows.q_width), walk.pairs.k_stride = rows.q_width;
  else
    walk.keys = rows.keys, walk.k_stride = rows.q_width;
  walk.enter(task.key);
  const KeyRange seen = walk.block_keys(task.key);
  if (seen.begin >= seen.end) return;
  if (walk.terms() && !open_terms(walk, task.key, seen)) return;
  read_queries(task, walk.rows, rows);
  walk.set_ranges(task.key);
  if (attention.dropout.any())
    draw_factors(attention.dropout, task.key, static_cast<int>(seen.begin), static_cast<int>(seen.end), attention.rows,
                 walk.rows.dropout);
  if constexpr (kTiles)
    if (is_plain_step(task, walk, rows)) return run_by_tiles(task, walk, rows, seen);
  const bool hides = weigh_step(task, walk, rows, seen);
  multiply_step(task, walk, rows, seen, hides);
}

// One chain over the channels, as a score is.
template <class T>
void row_terms_task(const RowTermsTask<T>& task) noexcept {
  using Lanes = Vec<T>;
  const std::int64_t width = padded_width(task.value_dim);
  T* const rows = task.work;
  T *const out = rows + kRowBlock * width, *const d_out = out + kRowBlock * width,
           *const sums = d_out + kRowBlock * width;
  for (const auto& [stored, panel] : {std::pair{&task.out, out}, std::pair{&task.d_out, d_out}}) {
    const WholeRows<T> whole = read_whole_rows<T>(*stored, task.rows, task.value_dim, width, rows);
    pack_panel<T>(whole.at, whole.stride, task.rows, task.value_dim, panel);
  }
  for (int lane = 0; lane < task.rows; lane += Lanes::kLanes) {
    Lanes sum = Lanes::splat(0);
    for (int c = 0; c < task.value_dim; ++c)
      sum = Lanes::fma(Lanes::load(out + c * kRowBlock + lane), Lanes::load(d_out + c * kRowBlock + lane), sum);
    sum.store(sums + lane);
  }
  for (int row = 0; row < task.rows; ++row)
    task.row_terms[row] = task.d_lse ? sums[row] - task.d_lse[row * task.d_lse_stride] : sums[row];
}

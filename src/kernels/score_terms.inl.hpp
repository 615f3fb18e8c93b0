// SPDX-License-Identifier: Apache-2.0
// What becomes of scores between the products and the softmax: softcap, ALiBi, biases, what a key adds, masks, in this
// order.
//
// Masks are bits, a word a row and 32 keys, so that a lane tests its own. A bias is transposed into a panel like that
// of the scores. Both are read once a block. Hidden keys get -inf by selection: no arithmetic, so a boolean mask gives
// the bits of the range that says the same.

constexpr std::int64_t kLineBytes = 64;

// Words of a mask's row over the block: bit k of word w is set where the byte of key 32 w + k is not zero.
inline void mask_words(const DenseTerm& mask, std::int64_t place, KeyRange range, std::uint32_t (&words)[kMaskWords]) {
  const auto* bytes = static_cast<const std::uint8_t*>(mask.data) + place;
  std::uint8_t copy[kKeyBlock];
  if (mask.key_stride != 1 || range.begin > 0 || range.end < kKeyBlock) {  // nothing outside is read
    std::fill_n(copy, kKeyBlock, std::uint8_t{0});
    if (mask.key_stride == 1)
      std::copy(bytes + range.begin, bytes + range.end, copy + range.begin);
    else
      for (std::int64_t key = range.begin; key < range.end; ++key) copy[key] = bytes[key * mask.key_stride];
    bytes = copy;
  }
  for (int word = 0; word < kMaskWords; ++word) words[word] = nonzero_bytes(bytes + 32 * word);
}

// Bits for the keys of a range alone.
inline void range_words(KeyRange range, std::uint32_t (&words)[kMaskWords]) {
  for (int word = 0; word < kMaskWords; ++word) {
    const std::int64_t begin = std::clamp<std::int64_t>(range.begin - 32 * word, 0, 32);
    const std::int64_t end = std::clamp<std::int64_t>(range.end - 32 * word, 0, 32);
    words[word] = static_cast<std::uint32_t>((std::uint64_t{1} << end) - (std::uint64_t{1} << begin));
    if (begin >= end) words[word] = 0;
  }
}

// The bits of the block, ranges, gaps and masks; false when no row sees a key.
template <class T>
bool load_masks(const Walk<T>& walk, std::int64_t start) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const ScoreTerms<T>& terms = walk.task.terms;
  const bool whole = walk.all_see(start);
  std::uint32_t any = 0, seen[kMaskWords] = {};
  for (int row = 0; row < walk.vecs * Vec<T>::kLanes; ++row) {
    if (row < walk.task.rows) {  // lanes past the last row repeat it
      const KeyRange range = whole ? KeyRange{0, kKeyBlock} : walk.row_keys(row, start);
      std::uint32_t words[kMaskWords];
      std::fill_n(seen, kMaskWords, ~0u);
      if (!whole) range_words(range, seen);
      if (walk.gapped) {
        const KeyRange gap = terms.gap(row);
        range_words({gap.begin - start, gap.end - start}, words);
        for (int word = 0; word < kMaskWords; ++word) seen[word] &= ~words[word];
      }
      const auto join = [&](const DenseTerm& mask, std::uint32_t flip) {
        if (!mask.data) return;
        mask_words(mask, row * mask.row_stride + start * mask.key_stride, range, words);
        for (int word = 0; word < kMaskWords; ++word) seen[word] &= words[word] ^ flip;
      };
      join(terms.keep, 0), join(terms.drop, ~0u);
    }
    for (int word = 0; word < kMaskWords; ++word) {
      const Bits bits = seen[word];
      __builtin_memcpy(walk.rows.seen + word * kRowBlock + row, &bits, sizeof bits);
      any |= seen[word];
    }
  }
  return any != 0;
}

// The bias of the block as a panel; false when all of it is -inf, which is looked for only where its first element is.
template <class T>
bool load_bias(Walk<T>& walk, std::int64_t start, KeyRange keys) {
  const DenseTerm& bias = walk.task.terms.bias;
  RowState<T>& rows = walk.rows;
  const AllFrom<T> from_floor{Vec<T>::splat(walk.task.terms.bias_floor)};
  const int count = static_cast<int>(keys.end - keys.begin);
  const std::int64_t first = (start + keys.begin) * bias.key_stride;
  T* const panel = rows.bias + keys.begin * kRowBlock;
  if (!rows.staged) {
    rows.lows = !pack_panel<T>(static_cast<const T*>(bias.data) + first, bias.row_stride, walk.task.rows, count, panel,
                               from_floor)
                     .all();
  } else {
    for (int row = 0; row < walk.task.rows; ++row)
      load_row<T>(element(bias.data, bias.type, first + row * bias.row_stride), bias.type, bias.key_stride, count,
                  rows.staged + row * kKeyBlock);
    rows.lows = !pack_panel<T>(rows.staged, kKeyBlock, walk.task.rows, count, panel, from_floor).all();
  }
  if (!rows.lows || panel[0] != kMinusInfinity<T>) return true;
  for (int key = 0; key < count; ++key)
    for (int row = 0; row < walk.task.rows; ++row)
      if (panel[key * kRowBlock + row] != kMinusInfinity<T>) return true;
  return false;
}

// What is added by distance: along a line of rows it runs backwards, so a row's value for a key is an unaligned load.
template <class T>
void load_distances(const Walk<T>& walk, std::int64_t start) {
  const ScoreTerms<T>& terms = walk.task.terms;
  const T* const middle = terms.by_distance + terms.max_distance;
  const std::int64_t nearest = start - terms.position;
  for (int i = 0; i < kDistanceLines * kRowBlock; ++i)
    walk.rows.distances[i] =
        middle[std::clamp<std::int64_t>(nearest + kKeyBlock - 1 - i, -terms.max_distance, terms.max_distance)];
}

// Asks for some rows of the next block, whose short runs no prefetcher foresees.
template <class T>
MULTIHEAD_INLINE void prefetch_rows(const Walk<T>& walk, const DenseTerm& term, std::size_t element_size,
                                    std::int64_t start, KeyRange rows) {
  if (!term.data || term.row_stride == 0 || term.key_stride != 1) return;
  const auto size = static_cast<std::int64_t>(element_size);
  const std::int64_t end = std::min<std::int64_t>(rows.end, walk.task.rows);
  const int vec = static_cast<int>((end - 1) / Vec<T>::kLanes);  // whose range stands for that of all the rows
  const std::int64_t first = walk.block_begin(vec, start) * size, last = walk.block_end(vec, start) * size;
  for (std::int64_t row = rows.begin; row < end; ++row) {
    const char* const from = static_cast<const char*>(term.data) + (row * term.row_stride + start) * size;
    for (std::int64_t at = first; at < last; at += kLineBytes) __builtin_prefetch(from + at, 0, 3);
  }
}

// As many of the rows as keys of this block are done, so that the requests are spread over the products. (A
// function of nothing but prefetches is taken for one without effect, and dropped, unless it is inlined.)
template <class T>
MULTIHEAD_INLINE void prefetch_terms(const Walk<T>& walk, std::int64_t start, int key, int count) {
  const ScoreTerms<T>& terms = walk.task.terms;
  const KeyRange rows{key * kRowBlock / kKeyBlock, (key + count) * kRowBlock / kKeyBlock};
  prefetch_rows(walk, terms.bias, size_of(terms.bias.type), start + kKeyBlock, rows);
  prefetch_rows(walk, terms.keep, 1, start + kKeyBlock, rows);
  prefetch_rows(walk, terms.drop, 1, start + kKeyBlock, rows);
}

// Everything that must be known of a block before its scores: false when no row sees a key of it.
template <class T>
bool open_terms(Walk<T>& walk, std::int64_t start, KeyRange keys) {
  const ScoreTerms<T>& terms = walk.task.terms;
  if (walk.rows.seen && !load_masks(walk, start)) return false;
  if (walk.rows.bias && !load_bias(walk, start, keys)) return false;
  if (walk.rows.distances) load_distances(walk, start);
  if (terms.slope != 0)
    for (int row = 0; row < walk.vecs * Vec<T>::kLanes; ++row)
      walk.rows.place[row] = static_cast<T>(terms.position - start + row);
  return true;
}

// The lanes that see a key of the block by ranges and masks.
template <class T>
MULTIHEAD_INLINE typename Vec<T>::Mask seen_by_masks(const RowState<T>& rows, std::int64_t lane, int key) {
  using Lanes = Vec<T>;
  const unsigned bit = static_cast<unsigned>(key);
  if (rows.seen) return Lanes::test(Lanes::load(rows.seen + bit / 32 * kRowBlock + lane), static_cast<int>(bit % 32));
  const Lanes position = Lanes::splat(static_cast<T>(key));
  return Lanes::both(Lanes::load(rows.begin + lane) <= position, position < Lanes::load(rows.end + lane));
}

// a where x is not -inf, else b.
template <class T>
MULTIHEAD_INLINE Vec<T> unless_hidden(Vec<T> x, Vec<T> a, Vec<T> b) {
  return Vec<T>::select(x == Vec<T>::splat(kMinusInfinity<T>), b, a);
}

// A score and what a bias adds to it; lows: RowState::lows.
template <class T>
MULTIHEAD_INLINE Vec<T> with_bias(const T* from, const ScoreTerms<T>& terms, bool lows, Vec<T> score) {
  using Lanes = Vec<T>;
  const Lanes bias = Lanes::load(from), unit = Lanes::splat(terms.bias_unit);
  if (!lows) return Lanes::fma(bias, unit, score);
  const Lanes finite = Lanes::max(Lanes::splat(terms.bias_floor), bias);
  return unless_hidden(bias, Lanes::fma(finite, unit, score), Lanes::splat(kMinusInfinity<T>));
}

// What becomes of a product on its way to the scores: times scale, and by the bias and the masks of terms, if these are
// not null.
template <class T>
struct Scoring {
  T scale;
  const ScoreTerms<T>* terms;
};

// That of the walk's keys. Terms that take a pass of their own leave bias and masks to it, which come after them.
template <class T>
Scoring<T> scoring_of(const Walk<T>& walk) {
  return {walk.task.scale, walk.passes() ? nullptr : &walk.task.terms};
}

// x as a number of which the compiler knows nothing, so that loads and stores count from it. Otherwise it shares what
// addresses have in common, and has no register for it.
template <class X>
MULTIHEAD_INLINE X opaque(X x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Products of N keys and V registers of rows to scores, and the block's maximum; masked: some row does not see some
// key by its range.
template <class T, int N, int V>
MULTIHEAD_INLINE void put_scores(const Vec<T> (&sums)[N][V], const Scoring<T>& by, const RowState<T>& rows, int lane,
                                 int key, bool masked) {
  using Lanes = Vec<T>;
  const std::int64_t first = key * kRowBlock + lane;
  Lanes scores[N][V];
  const auto each = [&](const auto& change) __attribute__((always_inline)) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) {  // keys within: what rows have of their own is needed once
      MULTIHEAD_UNROLL
      for (int n = 0; n < N; ++n) change(scores[n][v], n, v * Lanes::kLanes);
    }
  };
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) scores[n][v] = sums[n][v] * Lanes::splat(by.scale);
  }
  if (by.terms && rows.bias) {
    const T* const bias = opaque(rows.bias + first);
    each([&](auto& score, int n, int at) __attribute__((always_inline)) {
      score = with_bias(bias + n * kRowBlock + at, *by.terms, rows.lows, score);
    });
  }
  if (masked || (by.terms && rows.seen)) {
    const auto from = opaque<std::int64_t>(lane);
    each([&](auto& score, int n, int at) __attribute__((always_inline)) {
      score = Lanes::select(seen_by_masks(rows, from + at, key + n), score, Lanes::splat(kMinusInfinity<T>));
    });
  }
  T *const to = opaque(rows.scores + first), *const maxima = opaque(rows.block_max + lane);
  MULTIHEAD_UNROLL
  for (int v = 0; v < V; ++v) {
    const int at = v * Lanes::kLanes;
    Lanes largest = Lanes::load(maxima + at);
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      largest = Lanes::max(scores[n][v], largest);
      scores[n][v].store(to + n * kRowBlock + at);
    }
    largest.store(maxima + at);
  }
}

// Where scores go.
template <class T>
struct ScoresTo {
  const RowState<T>& rows;
  Scoring<T> scoring;
  bool masked;

  template <int N, int V>
  MULTIHEAD_INLINE void put(const Vec<T> (&sums)[N][V], int lane, int key) const {
    put_scores<T, N, V>(sums, scoring, rows, lane, key, masked);
  }
};

// Marks the lanes that see one of the keys [begin, end), whatever its score is.
template <class T>
MULTIHEAD_NOINLINE void count_seen(const RowState<T>& rows, int lane, int begin, int end) {
  using Lanes = Vec<T>;
  Lanes found = Lanes::load(rows.found + lane);
  for (int key = begin; key < end; ++key) {
    Lanes flag = Lanes::select(seen_by_masks(rows, lane, key), Lanes::splat(1), found);
    if (rows.lows) flag = unless_hidden(Lanes::load(rows.bias + key * kRowBlock + lane), flag, found);
    found = flag;
  }
  found.store(rows.found + lane);
}

// Leaves which rows have seen a key where bias or masks are dense. A finite maximum was seen; otherwise every key is
// looked at: what is seen may weigh nothing, or be NaN.
template <class T>
void note_seen(const RowState<T>& rows, int lane, int begin, int end) {
  using Lanes = Vec<T>;
  if (Lanes::any(Lanes::load(rows.block_max + lane) == Lanes::splat(kMinusInfinity<T>)))
    count_seen(rows, lane, begin, end);
  else
    Lanes::splat(1).store(rows.found + lane);
}

// The scores of one register of rows for the keys [begin, end) of the block, four at a time from a multiple of four;
// what lies outside is hidden from every lane. Leaves the block's maximum.
template <class T>
MULTIHEAD_NOINLINE void apply_terms(const Walk<T>& walk, int vec, std::int64_t start, int begin, int end) {
  using Lanes = Vec<T>;
  constexpr int kTogether = 4;
  const ScoreTerms<T>& terms = walk.task.terms;
  const RowState<T>& rows = walk.rows;
  const int lane = vec * Lanes::kLanes;
  const Lanes lowest = Lanes::splat(kMinusInfinity<T>);
  const Lanes slope = Lanes::splat(terms.slope);
  const Lanes place = terms.slope != 0 ? Lanes::load(rows.place + lane) : lowest;
  Lanes largest = lowest;
  for (int key = begin / kTogether * kTogether; key < end; key += kTogether) {
    T* const scores = rows.scores + key * kRowBlock + lane;
    Lanes s[kTogether];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) s[i] = Lanes::load(scores + i * kRowBlock);
    if (terms.cap != 0) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) s[i] = tanh<T>(s[i]) * Lanes::splat(terms.cap);
    }
    if (terms.slope != 0) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        const Lanes distance = place - Lanes::splat(static_cast<T>(key + i));
        s[i] = Lanes::fma(magnitude_of<T>(distance), slope, s[i]);
      }
    }
    if (rows.distances) {
      const T* const from = rows.distances + lane - key + kKeyBlock - 1;
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) s[i] = s[i] + Lanes::load(from - i);
    }
    if (rows.bias) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i)
        s[i] = with_bias(rows.bias + (key + i) * kRowBlock + lane, terms, rows.lows, s[i]);
    }
    if (terms.by_key) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i)
        s[i] = s[i] + Lanes::splat(terms.by_key[std::min<std::int64_t>(start + key + i, walk.task.kv_len - 1)]);
    }
    if (rows.seen || !walk.all_see(vec, start, key, key + kTogether)) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) s[i] = Lanes::select(seen_by_masks(rows, lane, key + i), s[i], lowest);
    }
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      largest = Lanes::max(s[i], largest);
      s[i].store(scores + i * kRowBlock);
    }
  }
  largest.store(rows.block_max + lane);
}

// output_tiles() for values that are not finite in a block that some row sees only in part: zero times NaN is NaN, so a
// hidden key is left out by selection. For the keys a row sees it is the chain of output_tiles(), bit for bit.
template <class T>
MULTIHEAD_NOINLINE void output_careful(const Walk<T>& walk, int lane, int begin, int end) {
  using Lanes = Vec<T>;
  const RowState<T>& rows = walk.rows;
  for (int column = 0; column < walk.task.value_dim; ++column) {
    Lanes sum = Lanes::splat(0);
    for (int key = begin; key < end; ++key) {
      const Lanes value = Lanes::splat(walk.values[key * walk.v_stride + column]);
      Lanes next = Lanes::fma(value, Lanes::load(rows.scores + key * kRowBlock + lane), sum);
      if (rows.lows) next = unless_hidden(Lanes::load(rows.bias + key * kRowBlock + lane), next, sum);
      sum = Lanes::select(seen_by_masks(rows, lane, key), next, sum);
    }
    T* out = rows.out + column * kRowBlock + lane;
    Lanes::fma(Lanes::load(out), Lanes::load(rows.old_factor + lane), sum * Lanes::load(rows.block_factor + lane))
        .store(out);
  }
}

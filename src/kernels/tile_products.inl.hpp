// SPDX-License-Identifier: Apache-2.0
// Products of tiles for attention: the operation of pairs.inl.hpp, 16 rows of A by 48 lanes of B at a time.
//
//               A, 16 rows of 32 elements at a time       B, 16 lines of 48 pairs at a time       C, 16 lines of 48
//   scores      keys                                      queries, packed once a task             scores [key][48]
//   output      values turned round, once a block         weights, packed once a block            block [column][48]
//
// A number is one bfloat16, or the sum of three: parts.inl.hpp. Of three the six products that matter are added, small
// ones first: high x low, middle x middle, low x high, high x middle, middle x high, high x high. A part of A serves
// three products of each of three tiles of lanes, so 12 tiles are loaded for 18 products.
//
// What stands in registers of vectors when a tile of pairs ends stands in memory here: scale, mask and maximum are a
// pass over the scores, and the merge is one over the block's output.

static_assert(kTileVecs * Vec<float>::kLanes == kRowBlock && kTileVecs == 3 && Vec<float>::kLanes == kTilePairs,
              "a group is all rows of a task, and a register of rows is a tile's width");

constexpr int kTileInner = 2 * kTilePairs;          // elements that one product adds up
constexpr int kMostTileSteps = 1024 / kTileInner;   // of a head_dim
constexpr std::int64_t kPanelLine = kRowBlock * 4;  // bytes
static_assert(kMostTileSteps >= kKeyBlock / kTileInner);

// What a task keeps beside its rows, as TileExtents counts it.
struct TileScratch {
  TileExtents extents;
  float* queries;                       // [part][head_dim / 2]: pairs
  std::uint16_t* keys;                  // [part][kKeyBlock][head_dim]
  std::uint16_t* values;                // [part][value_dim][kKeyBlock]
  float* weights;                       // [2][part][kKeyBlock / 2]: pairs
  float* block;                         // [value_dim]: the block's output; [kTileRows]: sums of its weights
  float* spare;                         // [spare_lines]: scores or outputs by multiply-adds
  float *marked, *sees;                 // 1 where a row has, or sees, what tiles cannot take
  float *zeros, *ones;                  // factors of a merge that leaves the block's output as it is
  float* unread;                        // where a maximum goes that no one asks for
  float* maxima;                        // of products
  float* again;                         // [kKeyBlock + 5]: of numbers in parts, weights that are computed again
  std::bitset<kKeyBlock>* marked_keys;  // and values, where no block is kept

  explicit TileScratch(const AttentionTask<float>& task, float* next) : extents(task.needs) {
    const auto take = [&](std::int64_t count) { return std::exchange(next, next + count); };
    queries = take(extents.queries());
    keys = reinterpret_cast<std::uint16_t*>(take(extents.keys()));
    values = reinterpret_cast<std::uint16_t*>(take(extents.values()));
    weights = take(extents.weights());
    block = take(extents.block_lines() * kRowBlock), spare = take(extents.spare_lines * kRowBlock);
    marked = take(kRowBlock), sees = take(kRowBlock), zeros = take(kRowBlock), ones = take(kRowBlock);
    unread = take(kRowBlock), maxima = take(kRowBlock);
    again = take(extents.again_lines() * kRowBlock);
    marked_keys = reinterpret_cast<std::bitset<kKeyBlock>*>(take(kRowBlock));
  }

  std::int64_t query_part() const { return extents.head_dim / 2 * kRowBlock; }
  std::int64_t key_part() const { return kKeyBlock * extents.head_dim; }
  std::int64_t value_part() const { return extents.value_dim * kKeyBlock; }
  static constexpr std::int64_t kWeightPart = kKeyBlock / 2 * kRowBlock;
};

// 16 rows of A, elements apart, and a panel of B, floats apart.
struct TileOperands {
  const std::uint16_t* a;
  std::int64_t a_stride, a_part;
  const float* b;
  std::int64_t b_part;
};

// The steps [first, last) of kTileInner elements, in each the registers of rows that take part, a bit each, and those
// that are written.
struct TileSteps {
  int first, last;
  std::uint8_t live[kMostTileSteps];
  unsigned written;
};

// The products of a step for one register of rows: sums in tile V, the parts of A in tiles 3 to 5, high ones first.
template <int Parts, int V>
MULTIHEAD_INLINE void tile_step(Tiles& tiles, const float* b, std::int64_t b_part) {
  const float* const from = b + V * kTilePairs;
  if constexpr (Parts == 1) {
    tiles.template load<4 + V>(from, kPanelLine);
    tiles.template dot<V, 3, 4 + V>();
  } else {
    tiles.template load<6>(from + 2 * b_part, kPanelLine);
    tiles.template dot<V, 3, 6>();
    tiles.template load<7>(from + b_part, kPanelLine);
    tiles.template dot<V, 4, 7>();
    tiles.template load<6>(from, kPanelLine);
    tiles.template dot<V, 5, 6>();
    tiles.template dot<V, 3, 7>();
    tiles.template dot<V, 4, 6>();
    tiles.template dot<V, 3, 6>();
  }
}

// c[m][lane] = the sum of A and B over the steps.
struct TileProduct {
  TileOperands by;
  TileSteps steps;
  float* c;
};

// Adds the steps [first, last) of a product to sums that stay in tiles 0 to 2 from one call to the next. The first step
// begins with zeros.
template <int Parts>
MULTIHEAD_NOINLINE void add_steps(Tiles& tiles, const TileProduct& product, int first, int last) {
  const TileOperands& by = product.by;
  if (first == product.steps.first) tiles.template zero<0>(), tiles.template zero<1>(), tiles.template zero<2>();
  for (int step = first; step < last; ++step) {
    const std::uint16_t* const a = by.a + step * kTileInner;
    const float* const b = by.b + step * kTilePairs * kRowBlock;
    const unsigned live = product.steps.live[step];
    if (live == 0) continue;
    tiles.template load<3>(a, 2 * by.a_stride);
    if constexpr (Parts == 3) {
      tiles.template load<4>(a + by.a_part, 2 * by.a_stride);
      tiles.template load<5>(a + 2 * by.a_part, 2 * by.a_stride);
    }
    if (live & 1) tile_step<Parts, 0>(tiles, b, by.b_part);
    if (live & 2) tile_step<Parts, 1>(tiles, b, by.b_part);
    if (live & 4) tile_step<Parts, 2>(tiles, b, by.b_part);
  }
}

inline void store_sums(Tiles& tiles, const TileProduct& product) {
  if (product.steps.written & 1) tiles.template store<0>(product.c, kPanelLine);
  if (product.steps.written & 2) tiles.template store<1>(product.c + kTilePairs, kPanelLine);
  if (product.steps.written & 4) tiles.template store<2>(product.c + 2 * kTilePairs, kPanelLine);
}

template <int Parts>
void multiply_tiles(const TileProduct& product) {
  Tiles tiles;
  add_steps<Parts>(tiles, product, product.steps.first, product.steps.last);
  store_sums(tiles, product);
}

// The product of what is stored for 16 keys, from a multiple of 16 on, `inner` elements each, with the group's rows, to
// a panel; nothing is written where no row sees one of them.
template <class T>
TileProduct product_of_tile(const Group& group, const TileOperands& by, int inner, T* panel, int key) {
  const KeyStrip strip = strip_of(group, key, kTileRows, false);
  TileProduct product{by, {0, (inner + kTileInner - 1) / kTileInner, {}, 0}, nullptr};
  if (strip.low >= strip.high) return product;
  product.steps.written = (1u << strip.high) - (1u << strip.low);
  std::fill_n(product.steps.live, product.steps.last, static_cast<std::uint8_t>(product.steps.written));
  product.by.a += key * by.a_stride;
  product.c = panel + key * kRowBlock;
  return product;
}

// Scores that nothing was done to.
template <class T>
TileProduct product_of_keys(const Walk<T>& walk, const Group& group, const TileOperands& by, int key) {
  return product_of_tile(group, by, walk.task.head_dim, walk.rows.scores, key);
}

template <int Parts, class T>
void multiply_keys(const Walk<T>& walk, const Group& group, const TileOperands& by) {
  const bool prefetch = walk.task.terms.dense();
  for (int key = group.begin / kTileRows * kTileRows; key < group.end; key += kTileRows) {
    if (prefetch) prefetch_terms(walk, group.start, key, kTileRows);
    const TileProduct product = product_of_keys(walk, group, by, key);
    if (product.c) multiply_tiles<Parts>(product);
  }
}

// Products of N keys and V registers of rows to scores, in place.
template <int N, int V>
MULTIHEAD_NOINLINE void put_tile_scores(const RowState<float>& rows, const Scoring<float>& scoring,
                                        const KeyStrip& strip, int lane) {
  Vec<float> sums[N][V];
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    const float* const from = rows.scores + (strip.key + n) * kRowBlock + lane;
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Vec<float>::load(from + v * Vec<float>::kLanes);
  }
  put_scores<float, N, V>(sums, scoring, rows, lane, strip.key, strip.masked);
}

template <class T>
void finish_tile_scores(const Walk<T>& walk, const Group& group) {
  in_strips(group.begin, group.end, [&]<int N>(int key) {
    const KeyStrip strip = strip_of(group, key, N, !walk.passes());
    if (strip.low >= strip.high) return;
    by_width(strip.high - strip.low,
             [&]<int V>() { put_tile_scores<N, V>(walk.rows, scoring_of(walk), strip, strip.low * Vec<T>::kLanes); });
  });
}

// The steps over the block's keys that some register of the group sees.
template <class T>
TileSteps steps_of_keys(const Walk<T>& walk, const Group& group) {
  TileSteps steps{group.begin / kTileInner, (group.end + kTileInner - 1) / kTileInner, {}, (1u << group.count) - 1};
  for (int step = steps.first; step < steps.last; ++step)
    for (int vec = 0; vec < group.count; ++vec)
      if (walk.sees(vec, group.start, step * kTileInner, (step + 1) * kTileInner))
        steps.live[step] = static_cast<std::uint8_t>(steps.live[step] | 1u << vec);
  return steps;
}

// Columns [begin, end) of the block's output merged into that of the rows.
template <class T>
MULTIHEAD_NOINLINE void merge_tile_output(const Walk<T>& walk, const Group& group, const T* block, int begin, int end) {
  using Lanes = Vec<T>;
  const RowState<T>& rows = walk.rows;
  for (int lane = 0; lane < group.count * Lanes::kLanes; lane += Lanes::kLanes) {
    const Lanes old_factor = Lanes::load(rows.old_factor + lane), factor = Lanes::load(rows.block_factor + lane);
    for (int column = begin; column < end; ++column) {
      T* const out = rows.out + column * kRowBlock + lane;
      Lanes::fma(Lanes::load(out), old_factor, Lanes::load(block + column * kRowBlock + lane) * factor).store(out);
    }
  }
}

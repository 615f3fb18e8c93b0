// SPDX-License-Identifier: Apache-2.0
// The task of attention_task.inl.hpp with its products between the steps of its softmax, bit for bit the same: for
// calls whose scores are scaled products, hidden by ranges at most, and whose weights nothing else asks for.
//
//   the block before   weights times values, 16 columns at a time, merged into the rows' output     tiles, then vectors
//   the block at hand  its scores become weights, 16 keys of 16 rows at a time                      vectors
//   the block after    keys times queries, 16 keys at a time, into the place of scores that are     tiles, then vectors
//                      weights already; then the maxima of these products
//
// Tiles and vectors wait for nothing of each other but at a block's end, and a core looks some hundred instructions
// ahead: so both are busy. What tiles store is read a step later, and stored a step after its last product.
//
// Products stand as they are until they become weights: their largest times the scale is the largest score, the scale
// being positive, and each is multiplied by the scale where it is weighed.

// The largest of the products of kTileRows keys, from one on, with a register of rows. masked: hidden ones become -inf.
template <class T>
MULTIHEAD_NOINLINE void find_tile_maxima(const RowState<T>& rows, int lane, int key, bool masked, T* maxima) {
  using Lanes = Vec<T>;
  constexpr int kChains = 4;
  const Lanes lowest = Lanes::splat(kMinusInfinity<T>);
  T* const products = rows.scores + key * kRowBlock + lane;
  Lanes largest[kChains] = {Lanes::load(maxima + lane), lowest, lowest, lowest};
  MULTIHEAD_UNROLL
  for (int n = 0; n < kTileRows; ++n) {
    Lanes x = Lanes::load(products + n * kRowBlock);
    if (masked) {
      const Lanes position = Lanes::splat(static_cast<T>(key + n));
      const auto seen =
          Lanes::both(Lanes::load(rows.begin + lane) <= position, position < Lanes::load(rows.end + lane));
      x = Lanes::select(seen, x, lowest);
      x.store(products + n * kRowBlock);
    }
    largest[n % kChains] = Lanes::max(x, largest[n % kChains]);
  }
  Lanes::max(Lanes::max(largest[0], largest[1]), Lanes::max(largest[2], largest[3])).store(maxima + lane);
}

// The chains of a register's weights, as softmax() adds them up.
template <class T>
using TileSums = T[kSumChains][Vec<T>::kLanes];

// Products of kTileRows keys with a register of rows to weights, and those to what tiles multiply.
template <class T>
MULTIHEAD_NOINLINE void weigh_tile(const T* products, T scale, const T* block_max, TileSums<T>& sums, T* weights) {
  using Lanes = Vec<T>;
  constexpr int kTogether = kSoftmaxTogether;
  static_assert(kSumChains == kTileRows && kTogether % 2 == 0);
  const Lanes factor = Lanes::splat(scale), reference = finite_or_zero<T>(Lanes::load(block_max));
  MULTIHEAD_UNROLL
  for (int key = 0; key < kTileRows; key += kTogether) {
    Lanes x[kTogether];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) x[i] = Lanes::load(products + (key + i) * kRowBlock) * factor - reference;
    exp2_nonpositive<T>(x);
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) (Lanes::load(sums[key + i]) + x[i]).store(sums[key + i]);
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; i += 2) put_weights(x[i], x[i + 1], weights + (key + i) / 2 * kRowBlock);
  }
}

template <class T>
class TilePipeline {
 public:
  explicit TilePipeline(Walk<T>& walk)
      : walk_(walk), scratch_(walk.task, walk.rows.tiles), weights_(scratch_.weights) {}

  // All blocks of the keys that some row sees.
  void run(KeyRange keys) {
    std::fill_n(scratch_.maxima, kRowBlock, kMinusInfinity<T>);
    for (std::int64_t start = keys.begin / kKeyBlock * kKeyBlock; start < keys.end || some(before_) || some(now_);) {
      if (some(before_)) open_output();
      next_ = Group{};
      for (; start < keys.end && !some(next_); start += kKeyBlock) next_ = group_of(walk_, 0, start);
      if (some(next_)) open_scores(keys);
      plan();
      weigh();
      free_ = kKeyBlock;
      while (products_left()) advance(std::numeric_limits<int>::max());
      close();
      before_ = now_, now_ = next_;
      weights_ = other_weights();
    }
  }

 private:
  static constexpr int kLanes = Vec<T>::kLanes;
  static constexpr int kWeights = kTileParts * TileScratch::kWeightPart;

  enum class Kind { none, scores, output };
  // 16 keys, or columns, from one on.
  struct Job {
    Kind kind = Kind::none;
    int at = 0;
  };

  static bool some(const Group& group) { return group.begin < group.end; }
  // Those of the block before, where weights_ are those of the block at hand.
  T* other_weights() const { return scratch_.weights + (weights_ == scratch_.weights ? kWeights : 0); }

  void open_output() {
    walk_.set_values(before_.start, {before_.begin, before_.end});
    output_steps_ = steps_of_keys(walk_, before_);
    column_ = 0;
    output_waits_ = output_waits(walk_);
  }

  void open_scores(KeyRange keys) {
    if (next_.start + kKeyBlock >= keys.end) prefetch_output(walk_.task);
    if (!walk_.all_see(next_.start)) walk_.set_ranges(next_.start);
    walk_.set_keys(next_.start, {next_.begin, next_.end});
    key_ = next_.begin / kTileRows * kTileRows;
    scores_wait_ = scores_wait(walk_, scratch_);
  }

  int columns_left() const { return some(before_) ? std::max(output_columns(walk_, scratch_) - column_, 0) : 0; }
  int keys_left() const { return some(next_) ? std::max(next_.end - key_, 0) : 0; }
  bool products_left() const {
    return columns_left() + keys_left() > 0 || under_way_.kind != Kind::none || stored_.kind != Kind::none;
  }

  // How many steps of products there are, and of the softmax to have them between.
  void plan() {
    const auto whole = [](int count, int unit) { return (count + unit - 1) / unit; };
    steps_ = whole(keys_left(), kTileRows) * whole(walk_.task.head_dim, kTileInner) +
             whole(columns_left(), kTileRows) * (output_steps_.last - output_steps_.first);
    steps_done_ = 0;
    columns_ = std::max(columns_left(), 1), keys_ = std::max(keys_left(), 1);
  }

  // The scores of the block at hand, which become weights, and the products between.
  void weigh() {
    free_ = kKeyBlock;
    if (!some(now_)) return;
    std::memset(sums_, 0, sizeof sums_);
    const TileSteps seen = steps_of_keys(walk_, now_);
    const int chunks = (seen.last - seen.first) * (kTileInner / kTileRows) * now_.count;
    int chunk = 0;
    for (int key = seen.first * kTileInner; key < seen.last * kTileInner; key += kTileRows) {
      free_ = key;
      for (int vec = 0; vec < now_.count; ++vec) {
        if (seen.live[key / kTileInner] >> vec & 1) weigh(vec, key);
        advance(steps_ * ++chunk / chunks);
      }
    }
  }
  void weigh(int vec, int key) {
    const int lane = vec * kLanes;
    T* const to = weights_ + key / 2 * kRowBlock + lane;
    if (walk_.sees(vec, now_.start, key, key + kTileRows))
      return weigh_tile<T>(walk_.rows.scores + key * kRowBlock + lane, walk_.task.scale, walk_.rows.block_max + lane,
                           sums_[vec], to);
    for (int part = 0; part < kTileParts; ++part)
      for (int line = 0; line < kTileRows / 2; ++line)
        Vec<T>::splat(0).store(to + part * TileScratch::kWeightPart + line * kRowBlock);
  }

  // Brings the products on until `due` steps of the block are done, or one ends. What it left is stored at the next
  // call and used at the one after.
  void advance(int due) {
    if (stored_.kind != Kind::none) use(std::exchange(stored_, Job{}));
    if (under_way_.kind != Kind::none && step_ == product_.steps.last) {
      store_sums(tiles_, product_);
      stored_ = std::exchange(under_way_, Job{});
    }
    if (under_way_.kind == Kind::none && !open_product()) return;
    const int steps = std::min(product_.steps.last - step_, due - steps_done_);
    if (steps <= 0) return;
    add_steps<kTileParts>(tiles_, product_, step_, step_ + steps);
    step_ += steps, steps_done_ += steps;
  }

  // Whichever of the blocks before and after is behind the other, if it can go on.
  bool open_product() {
    const bool can_score = keys_left() > 0 && key_ < free_;
    if (columns_left() > 0 && (!can_score || columns_left() * keys_ >= keys_left() * columns_)) {
      under_way_ = {Kind::output, column_};
      product_ = {output_operands<T>(walk_, scratch_, other_weights(), column_), output_steps_,
                  scratch_.block + column_ * kRowBlock};
      column_ += kTileRows;
    } else if (can_score) {
      under_way_ = {Kind::scores, key_};
      product_ = product_of_keys(walk_, next_, score_operands(walk_, scratch_), key_);
      key_ += kTileRows;
      if (!product_.c) return under_way_ = {}, false;
    } else {
      return false;
    }
    step_ = product_.steps.first;
    return true;
  }

  void use(const Job& job) {
    if (job.kind == Kind::output && !output_waits_) merge_columns(walk_, scratch_, before_, job.at);
    if (job.kind == Kind::scores && !scores_wait_) find_maxima(job.at);
  }
  void find_maxima(int key) {
    const KeyStrip strip = strip_of(next_, key, kTileRows, false);
    for (int vec = strip.low; vec < strip.high; ++vec)
      find_tile_maxima<T>(walk_.rows, vec * kLanes, key, !walk_.all_see(vec, next_.start, key, key + kTileRows),
                          scratch_.maxima);
  }

  // What is left of the three blocks when the products are done.
  void close() {
    if (some(next_) && scores_wait_) {
      finish_scores(walk_, scratch_, next_);
      for (int key = next_.begin / kTileRows * kTileRows; key < next_.end; key += kTileRows) find_maxima(key);
    }
    if (some(before_)) finish_output(walk_, scratch_, before_, other_weights());
    for (int vec = 0; some(now_) && vec < now_.count; ++vec) merge(vec);
    const Vec<T> scale = Vec<T>::splat(walk_.task.scale), lowest = Vec<T>::splat(kMinusInfinity<T>);
    for (int lane = 0; some(next_) && lane < next_.count * kLanes; lane += kLanes) {
      (Vec<T>::load(scratch_.maxima + lane) * scale).store(walk_.rows.block_max + lane);
      lowest.store(scratch_.maxima + lane);
    }
  }
  // The sums of the block at hand.
  void merge(int vec) {
    Vec<T> chains[kSumChains];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kSumChains; ++i) chains[i] = Vec<T>::load(sums_[vec][i]);
    merge_block<T>(walk_.rows, vec * kLanes, join_chains<T>(chains));
  }

  Walk<T>& walk_;
  const TileScratch scratch_;
  Tiles tiles_;
  Group before_{}, now_{}, next_{};
  T* weights_;  // of the block at hand
  alignas(64) TileSums<T> sums_[kTileVecs];
  TileSteps output_steps_{};
  bool output_waits_ = false, scores_wait_ = false;
  int column_ = 0, key_ = 0;  // whose products are next
  int columns_ = 1, keys_ = 1;
  int free_ = 0;  // the keys up to here are weights already
  int steps_ = 0, steps_done_ = 0;
  Job under_way_, stored_;
  TileProduct product_{};
  int step_ = 0;
};

template <class T>
void tile_attention_task(const AttentionTask<T>& task) noexcept {
  if (!goes_in_parts(task)) return attention_task(task);
  Walk<T> walk(task);
  if (task.part == 0) {
    open_task(walk);
    start_pairs(walk);
  }
  TilePipeline<T>(walk).run(keys_of_part(walk));
  if (!task.pauses) finish(walk);
}

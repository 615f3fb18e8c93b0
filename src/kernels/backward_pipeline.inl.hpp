// SPDX-License-Identifier: Apache-2.0
// A step of the backward pass where products are those of tiles and nothing asks for scores or dS between: 16 keys at a
// time, so that tiles multiply while vectors work. Between the parts of what vectors do to 16 keys stand products of
// those after and before them:
//
//   keys before   P Z, dx -> added to dV or dK                   tiles
//   keys at hand  products -> P Z, dx -> rounded, dx turned      vectors
//   keys after    S, dP                                          tiles
//
// dQ follows when all keys are done. Every element gets what the plain way gives it (backward_task.inl.hpp), bit for
// bit.

template <class T>
bool is_plain_step(const BackwardTask<T>& task, const Walk<T>& walk, const BackwardRows<T>& rows) {
  return task.wants_scores && !walk.terms() && step_is_finite(task, rows);
}

template <class T>
class StepPipeline {
 public:
  StepPipeline(const BackwardTask<T>& task, const Walk<T>& walk, const BackwardRows<T>& rows, KeyRange seen)
      : task_(task),
        walk_(walk),
        rows_(rows),
        keys_{task.key, seen, false},
        group_(group_of(walk, 0, task.key)),
        products_(products_of(task, rows, places_of_factors(walk.rows, rows))) {}

  void run() {
    const int begin = static_cast<int>(keys_.seen.begin) / kTileInner * kTileInner;
    end_ = static_cast<int>(whole_steps(keys_.seen.end));
    multiply_score(begin), multiply_upward(walk_, rows_, group_, begin);
    for (int key = begin; key < end_; key += kTileRows) {
      open(key, key > begin + kTileRows);
      for (int vec = 0; vec < walk_.vecs; ++vec) weigh_keys_of(vec, key), multiply_until(vec + 1);
      round(key);
      multiply_until(kParts);
    }
    open(end_, true), multiply_until(kParts);
    open(end_ + kTileRows, true), multiply_until(kParts);
    if (task_.d_q) multiply_gradient_tiles<T, false>(walk_, keys_, products_.queries, rows_.edge);
  }

 private:
  static constexpr int kParts = kTileVecs + 1;  // of the vectors' work on 16 keys

  // The products beside these keys: S and dP of the next 16, and of the 32 before dV, then dK, two tiles of columns
  // each.
  void open(int key, bool has_before) {
    const int before = key / kTileInner * kTileInner - kTileInner;
    gradient_ = key % kTileInner == 0 ? &products_.values : &products_.keys;
    const int columns = has_before && gradient_->c ? gradient_->columns : 0;
    if (columns > 0) before_ = rows_from<T, true>(walk_, keys_, before);
    next_ = key + kTileRows, job_ = 0;
    jobs_ = 2 + (columns + 2 * kTilePairs - 1) / (2 * kTilePairs);
  }
  void multiply_until(int part) {
    for (; job_ < jobs_ * part / kParts; ++job_)
      if (job_ >= 2)
        multiply_columns<T, true>(*gradient_, before_, (job_ - 2) * 2 * kTilePairs, rows_.edge);
      else if (next_ < end_ && job_ == 0)
        multiply_score(next_);
      else if (next_ < end_)
        multiply_upward(walk_, rows_, group_, next_);
  }
  void multiply_score(int key) {
    const TileOperands by = score_tile_operands(walk_, rows_);
    const TileProduct product = product_of_keys(walk_, group_, by, key);
    if (product.c) multiply_tiles<1>(product);
  }

  // Those of 16 keys that some row sees; if none, nothing behind them.
  KeyRange seen_from(int key) const {
    const KeyRange found{std::max<std::int64_t>(keys_.seen.begin, key),
                         std::min<std::int64_t>(keys_.seen.end, key + kTileRows)};
    return found.begin < found.end ? found : KeyRange{key + kTileRows, key + kTileRows};
  }
  void weigh_keys_of(int vec, int key) {
    const KeyRange seen = seen_from(key);
    if (seen.begin == seen.end) return;
    const int lane = vec * Vec<T>::kLanes;
    KeyRange own{std::clamp<std::int64_t>(walk_.block_begin(vec, keys_.start), seen.begin, seen.end),
                 std::clamp<std::int64_t>(walk_.block_end(vec, keys_.start), seen.begin, seen.end)};
    if (own.begin >= own.end) own = {seen.begin, seen.begin};
    const bool hides = !walk_.all_see(vec, keys_.start, static_cast<int>(seen.begin), static_cast<int>(seen.end));
    const StepLanes<T> step{Vec<T>::load(rows_.lse + lane),
                            Vec<T>::load(rows_.term + lane),
                            hides,
                            walk_.task.dropout.any(),
                            true,
                            walk_.task.scale};
    weigh(walk_.rows, rows_, step, lane, own, seen);
  }
  void round(int key) {
    round_keys(task_, walk_.rows, rows_, seen_from(key), {key, key + kTileRows});
    if (key % kTileInner != 0) turn_factors(task_, walk_.rows, rows_, {key - kTileRows, key + kTileRows});
  }

  const BackwardTask<T>& task_;
  const Walk<T>& walk_;
  const BackwardRows<T>& rows_;
  const StepKeys keys_;
  const Group group_;
  const StepProducts<T> products_;
  int end_ = 0;
  // Of the 16 keys at hand.
  const GradientProduct<T>* gradient_ = nullptr;
  GradientRows before_{};
  int next_ = 0, job_ = 0, jobs_ = 0;
};

template <class T>
void run_by_tiles(const BackwardTask<T>& task, const Walk<T>& walk, const BackwardRows<T>& rows, KeyRange seen) {
  StepPipeline<T>(task, walk, rows, seen).run();
}

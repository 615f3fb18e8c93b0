// SPDX-License-Identifier: Apache-2.0
// Attention over two disjoint sets of keys joined by their log-sum-exps, row by row.

// With m the larger lse and a = exp(lse_a - m), b = exp(lse_b - m): out = out_a a / (a + b) + out_b b / (a + b) and
// lse = m + log(a + b). A side of -inf counts for nothing, whatever its row holds: it is left out by selection.
template <class T>
void merge_task(const MergeTask<T>& task) noexcept {
  using Lanes = Vec<T>;
  const Lanes lowest = Lanes::splat(kMinusInfinity<T>), zero = Lanes::splat(0);
  for (std::int64_t row = 0; row < task.rows; ++row) {
    const Lanes lse_a = Lanes::splat(task.lse_a[row * task.lse_a_stride]);
    const Lanes lse_b = Lanes::splat(task.lse_b[row * task.lse_b_stride]);
    const auto without_a = lse_a == lowest, without_b = lse_b == lowest;
    const auto without_both = Lanes::both(without_a, without_b);
    const Lanes m = Lanes::select(without_both, zero, Lanes::max(lse_a, lse_b));
    const Lanes a = exp<T>(lse_a - m), b = exp<T>(lse_b - m), sum = a + b;
    const Lanes share_a = a / sum, share_b = b / sum;
    const T* const out_a = task.out_a + row * task.a_stride;
    const T* const out_b = task.out_b + row * task.b_stride;
    T* const out = task.out + row * task.out_stride;
    for (std::int64_t column = 0; column < task.value_dim; column += Lanes::kLanes) {
      const auto valid = static_cast<int>(std::min<std::int64_t>(task.value_dim - column, Lanes::kLanes));
      const Lanes x = Lanes::select(without_a, zero, Lanes::load_first(out_a + column, valid) * share_a);
      const Lanes y = Lanes::load_first(out_b + column, valid);
      Lanes::select(without_b, x, Lanes::fma(y, share_b, x)).store_first(out + column, valid);
    }
    T lanes[Lanes::kLanes];
    Lanes::select(without_both, lowest, m + log<T>(sum)).store(lanes);
    task.lse[row * task.lse_stride] = lanes[0];
  }
}

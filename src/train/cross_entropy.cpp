// SPDX-License-Identifier: Apache-2.0
// cross_entropy(): the loss of rows of logits, and its gradient.
#include <algorithm>
#include <cmath>

#include "core/float_mode.hpp"
#include "core/scratch.hpp"
#include "kernels/table.hpp"
#include "multihead/gradients.hpp"
#include "train/checks.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "cross_entropy";

// Rows of one call. With m the largest logit, z = sum exp(x - m), t the target and s the smoothing:
//   loss = log z - (1 - s) (x_t - m) - s / classes sum (x - m)
//   d_x  = factor (exp(x - m) / z - (1 - s) [class is t] - s / classes)
// exp in the logits' type, what follows it in double.
template <class T>
struct LossRows {
  std::int64_t classes;
  double smoothing, factor;
  const KernelTable& table;
  T *shifted, *exps;  // (classes)

  static bool is_largest(const T* x, std::int64_t classes, std::int64_t target) {
    const T own = x[target];
    int others = own == own ? 0 : 1;  // that are not below: whole registers of comparisons
    for (std::int64_t c = 0; c < target; ++c) others |= x[c] < own ? 0 : 1;
    for (std::int64_t c = target + 1; c < classes; ++c) others |= x[c] <= own ? 0 : 1;
    return others == 0;
  }

  // NaN may hide from it, not from the sum of exponentials.
  static T largest_of(const T* x, std::int64_t classes) {
    constexpr std::int64_t kTogether = 8;
    T largest[kTogether];
    std::fill_n(largest, kTogether, x[0]);
    std::int64_t c = 0;
    for (; c + kTogether <= classes; c += kTogether)
      for (std::int64_t i = 0; i < kTogether; ++i) largest[i] = largest[i] < x[c + i] ? x[c + i] : largest[i];
    for (; c < classes; ++c) largest[0] = std::max(largest[0], x[c]);
    return *std::max_element(largest, largest + kTogether);
  }

  // A row's loss; d_x, which may be x, where it is not null.
  double row(const T* x, std::int64_t target, T* d_x) const {
    const T largest = largest_of(x, classes);
    for (std::int64_t c = 0; c < classes; ++c) shifted[c] = x[c] - largest;
    table.kernels<T>().map(MathFunction::exp, shifted, exps, classes);
    double sum = 0, all = 0;
    for (std::int64_t c = 0; c < classes; ++c) {
      sum += static_cast<double>(exps[c]);
      all += static_cast<double>(shifted[c]);
    }
    double expected = (1 - smoothing) * static_cast<double>(shifted[target]);
    if (smoothing > 0) expected += smoothing / static_cast<double>(classes) * all;
    if (d_x) {
      const double scale = factor / sum, shared = factor * smoothing / static_cast<double>(classes);
      const double p = static_cast<double>(exps[target]);
      for (std::int64_t c = 0; c < classes; ++c) d_x[c] = static_cast<T>(static_cast<double>(exps[c]) * scale - shared);
      d_x[target] = static_cast<T>(p * scale - shared - factor * (1 - smoothing));
    }
    double log = 0;
    table.f64.map(MathFunction::log, &sum, &log, 1);
    return log - expected;
  }
};

}  // namespace

template <class T>
CrossEntropy cross_entropy(MatrixView<const T> logits, std::span<const std::int64_t> targets, double smoothing,
                           MatrixView<T> d_logits, double factor) {
  const Operand from = operand("logits", logits), to = operand("d_logits", d_logits);
  const ListView wanted = view_of(targets);
  check_matrix(kName, from);
  check_equal(kName, "targets", "has", wanted.extent(0), "logits has rows", logits.extent(0));
  for (std::int64_t target : targets) check_between(kName, "a target", target, -1, logits.extent(1) - 1);
  if (!(smoothing >= 0 && smoothing <= 1))
    fail(ErrorCode::bad_option,
         std::string(kName) + ": smoothing is " + std::to_string(smoothing) + "; it must be 0 to 1");
  if (!std::isfinite(factor)) fail(ErrorCode::bad_option, std::string(kName) + ": factor is not finite; it must be");
  if (given(d_logits)) {
    check_matrix(kName, to);
    check_like(kName, to, "logits has", from);
    check_written(kName, to, {operand("targets", wanted)});
    if (!same_place(to, from)) check_apart(kName, to, from);
  }
  const KernelTable& table = choose_kernels({});
  const std::int64_t classes = logits.extent(1);
  const auto elements = static_cast<std::size_t>(classes);
  Scratch scratch(2 * round_to_line(elements * sizeof(T)), {}, kName);
  const FloatMode mode;
  T *const shifted = scratch.take<T>(elements), *const exps = scratch.take<T>(elements);
  const LossRows<T> rows{classes, smoothing, factor, table, shifted, exps};
  CrossEntropy result;
  double sum = 0;
  for (std::int64_t i = 0; i < logits.extent(0); ++i) {
    const T* const x = logits.data() + i * logits.stride(0);
    T* const d_x = given(d_logits) ? d_logits.data() + i * d_logits.stride(0) : nullptr;
    if (wanted(i) < 0) {
      if (d_x) std::fill_n(d_x, classes, T(0));
      continue;
    }
    ++result.rows;
    if (LossRows<T>::is_largest(x, classes, wanted(i))) ++result.correct;
    sum += rows.row(x, wanted(i), d_x);
  }
  if (result.rows > 0) result.loss = sum / static_cast<double>(result.rows);
  return result;
}

template CrossEntropy cross_entropy(MatrixView<const float>, std::span<const std::int64_t>, double, MatrixView<float>,
                                    double);
template CrossEntropy cross_entropy(MatrixView<const double>, std::span<const std::int64_t>, double, MatrixView<double>,
                                    double);

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// The passes of statistics after the first: columns, and all that is norm_weighted.
#pragma once

#include <cstddef>
#include <optional>

#include "kernels/columns.hpp"

namespace multihead {

// The distribution p_ij n_j / sum_j p_ij n_j is the softmax of scores to which log n_j is added, without a sink: a pass
// over scores that gathers its statistics and writes no output, and then its columns. A norm of 0 weighs nothing; a row
// of such keys alone counts as one that sees none. The logarithm of a negative norm or NaN is NaN, which shows.
template <class T>
class NormWeightedPass {
 public:
  // The shape, the options and the request must outlive it.
  NormWeightedPass(const AttentionShape& shape, const AttentionOptions& options, const StatisticsRequest<T>& request);
  NormWeightedPass(const NormWeightedPass&) = delete;

  bool wants_softmax() const { return columns_.any(); }
  std::size_t bytes() const;
  // call: q and k; where softmax is wanted, row_max and row_sum, which are overwritten.
  void run(const char* function, const AttentionCall<T>& call, const KernelTable& table, std::byte* memory);

 private:
  std::size_t norms_bytes() const;
  std::size_t workers_bytes() const;
  void take_logarithms(const KernelTable& table, T* to) const;

  AttentionShape shape_;
  AttentionOptions options_;
  const StatisticsRequest<T>& request_;
  Schedule<T> schedule_;
  ColumnsPass<T> columns_;
};

// Everything that a request wants of passes after the first, whose schedule is given, prepared before run().
template <class T>
class StatisticsPasses {
 public:
  StatisticsPasses(const Schedule<T>& first, const StatisticsRequest<T>& request);
  StatisticsPasses(const StatisticsPasses&) = delete;

  // Whether call must have memory for row_max and row_sum.
  bool wants_softmax() const { return columns_.any() || (norm_weighted_ && norm_weighted_->wants_softmax()); }
  std::size_t bytes() const { return columns_.bytes() + (norm_weighted_ ? norm_weighted_->bytes() : 0); }
  // call: q and k, and the row_max and row_sum of the first pass, which are overwritten.
  void run(const char* function, const AttentionCall<T>& call, const KernelTable& table, std::byte* memory);

 private:
  ColumnsPass<T> columns_;
  std::optional<NormWeightedPass<T>> norm_weighted_;
};

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// Weights on request: the rules of a request, and the pass that fills it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/validate.hpp"
#include "kernels/schedule.hpp"
#include "multihead/attention.hpp"

namespace multihead {

// The rules of a request but those of norms: heads, rows, extents, and outputs that are writable and apart from each
// other, from inputs, and from masks and biases.
template <class T>
void check_weights_outputs(const char* function, const WeightsRequest<T>& request, const AttentionShape& shape,
                           std::initializer_list<Operand> inputs, const AttentionOptions& options);
// The same, and the rules of norms.
template <class T>
void check_weights(const char* function, const WeightsRequest<T>& request, const AttentionShape& shape,
                   std::initializer_list<Operand> inputs, const AttentionOptions& options);

// An output is apart from the lists and the norms that a checked request reads.
template <class T>
void check_apart_from_weights(const char* function, const Operand& output, const WeightsRequest<T>& request);

// One pass over what was asked for, after attention() or alone.
template <class T>
class WeightsPass {
 public:
  WeightsPass(const AttentionShape& shape, const AttentionOptions& options, const WeightsRequest<T>& request);
  WeightsPass(const WeightsPass&) = delete;

  // Memory for tables and workers; a multiple of a cache line. most_bytes: of any request for up to q_len rows.
  std::size_t bytes() const { return bytes_of(most_runs()); }
  std::size_t most_bytes() const { return bytes_of(static_cast<std::size_t>(shape_.batch * shape_.q_len)); }
  void prepare(const char* function, std::byte* memory);
  // call: q and k; for normalised weights row_max and row_sum as well.
  void run(const AttentionCall<T>& call, const KernelTable& table) const;

 private:
  // Consecutive rows asked for, all of one sequence.
  struct RowRun {
    Sequence sequence;
    std::int64_t row, rows, out_row;
  };
  bool combines() const { return request_.mean.data() || request_.norm_weighted.data(); }
  std::int64_t head_count() const;
  std::int64_t head_at(std::int64_t index) const;
  std::size_t most_runs() const;
  std::size_t bytes_of(std::size_t runs) const;
  void find_runs();
  WeightsTask<T> task(const AttentionCall<T>& call, const RowRun& run, std::int64_t head_index,
                      KeyRange* visible) const;

  AttentionShape shape_;
  AttentionOptions options_;  // what scores go through to the point that was asked for
  const WeightsRequest<T>& request_;
  Schedule<T> schedule_;
  RowRun* runs_ = nullptr;
  std::int64_t run_count_ = 0;
  std::byte* workers_ = nullptr;
};

// attention_weights() of queries and keys stored in two bytes.
void attention_weights(View4<const BFloat16> q, View4<const BFloat16> k, View3<const float> lse,
                       const WeightsRequest<float>& weights, const AttentionOptions& options);
void attention_weights(View4<const Float16> q, View4<const Float16> k, View3<const float> lse,
                       const WeightsRequest<float>& weights, const AttentionOptions& options);

}  // namespace multihead

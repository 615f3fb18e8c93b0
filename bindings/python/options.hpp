// SPDX-License-Identifier: Apache-2.0
// Options by their Python names as mh_attention_options, and weights on request.
#pragma once

#include "frameworks.hpp"
#include "lists.hpp"

namespace face {

// Threads that a call without `threads` uses: what was set, or all that the process may use.
int default_threads();
// 0: all that the process may use.
void set_default_threads(int threads);

// threads and target of a call.
class RunOptions {
 public:
  explicit RunOptions(const char* function);
  void read_threads(nb::handle threads);
  void read_target(nb::handle target);
  // How much work there is, in multiply-adds: below what pays for waking others one thread does it, unless threads were
  // named.
  void set_work(double multiply_adds);
  const mh_run_options* get() const { return &run_; }

 private:
  const char* function_;
  bool named_ = false;
  mh_run_options run_;
};

// The options of attention(), from a dict of those that are given; None stands for the default. A name that is none is
// a TypeError. The arrays are lent until the Options end.
class Options {
 public:
  Options(const char* function, const nb::dict& given);
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  const mh_attention_options* get() const { return &options_; }
  RunOptions& run() { return run_; }
  // cu_seqlens tells of queries alone: a cache knows where its keys begin.
  void keep_queries_alone();

 private:
  struct Reader;
  static const Reader kReaders[];
  static const Reader* reader_of(PyObject* name, size_t& next);

  void align(mh_alignment alignment);
  void read_causal(nb::handle value, Place place);
  void read_query_offset(nb::handle value, Place place);
  void read_window(nb::handle value, Place place);
  void read_window_first(nb::handle value, Place place);
  void read_cu_seqlens(nb::handle value, Place place);
  void read_segments(nb::handle value, Place place);
  void read_relative_bias(nb::handle value, Place place);
  void read_dropout_seed(nb::handle value, Place place);
  void read_dropout_stream(nb::handle value, Place place);
  void finish();

  const char* function_;
  bool has_dropout_seed_ = false, one_cu_seqlens_ = false;
  Array keep_mask_, drop_mask_, bias_, table_;
  Integers query_offsets_, prefixes_, lengths_, cu_seqlens_q_, cu_seqlens_k_, q_segments_, kv_segments_;
  Numbers alibi_slopes_, sinks_;
  RunOptions run_;
  mh_attention_options options_;
};

// What return_weights asks for, and the new array that it goes to.
class Weights {
 public:
  // The extents that the array follows from; batchless: without the axis of the batch.
  struct Extents {
    int64_t batch, heads, q_len, kv_len;
    bool batchless;
  };

  // asked: None or False, True, "mean", or a WeightsRequest.
  void read(nb::handle asked, const char* function);
  bool normalised() const { return request_.point == MH_WEIGHTS_NORMALISED; }
  bool wanted() const { return wanted_; }
  void make(Kind kind, mh_type type, const Extents& extents);
  const mh_weights_request* get() const { return wanted_ ? &request_ : nullptr; }
  nb::object result() const { return result_.object; }

 private:
  const char* function_ = "";
  bool wanted_ = false, mean_ = false, norm_weighted_ = false;
  Integers heads_, rows_;
  Array norms_;
  Result result_;
  mh_weights_request request_;
};

}  // namespace face

// SPDX-License-Identifier: Apache-2.0
// How a call over cached keys is cut into tasks.
//
// A sequence of few queries goes to the decode kernel, which passes its keys once for the rows of all heads of a kv
// head, kDecodeRows of them; others go to the attention kernel in blocks of kRowBlock rows of a head. Tasks of both
// kinds stand in one loop, the longest first. What decides a bit is where the keys are cut, at blocks of kKeyBlock, and
// nothing here moves that.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cached_call.hpp"
#include "kernels/decode_task.hpp"
#include "kernels/schedule.hpp"

namespace multihead {

// Tasks that stand side by side in a loop.
struct CachedPart {
  // attention  a task a head and row block of a sequence
  // decode     a task a kv head, or more, each of some rows and blocks of keys
  // go_on      the same, of rows that a prefix has begun
  // prefix     the same for the rows of the sequences [sequence, end) of the order, over blocks that all begin with
  // fold       a task a kv head: what pieces of decode left
  enum class Kind { attention, decode, go_on, prefix, fold };
  Kind kind;
  std::int64_t sequence, end = 0;
  KeyRange blocks = {};  // of keys
  std::int64_t tasks = 0, first_task = 0;
  double cost = 0;  // of its longest task
};

class CachedSchedule {
 public:
  // options: the call's. of_tasks: the same without what says which rows and keys belong together. All must outlive it.
  // shape: its q_len and kv_len are those of the longest sequences.
  CachedSchedule(const AttentionShape& shape, const AttentionOptions& options, const AttentionOptions& of_tasks,
                 const CachedKeys& keys);
  std::size_t bytes() const;
  // Runs in memory of bytes(), aligned to a cache line.
  void run(const char* function, const AttentionCall<float>& call, std::byte* memory);

 private:
  struct Loop {  // parts whose tasks wait for none of each other
    CachedPart* parts = nullptr;
    std::int64_t count = 0, tasks = 0;
  };
  Sequence sequence(std::int64_t index) const;
  std::int64_t rows_of(const Sequence& sequence) const { return sequence.q_len * group_; }
  bool decodes(const Sequence& sequence) const;
  KeyRange chunk_rows(std::int64_t index, std::int64_t chunk) const;
  std::int64_t state_elements(const Sequence& sequence) const;
  std::int64_t pieces(KeyRange blocks) const;
  std::size_t attention_bytes() const { return attending_ ? schedule_.task_bytes(false) : 0; }
  std::size_t worker_bytes() const;
  void count();
  void plan(std::byte* memory);
  void plan_decode(std::int64_t index, const Sequence& sequence, std::int64_t shared);
  void plan_prefixes();
  std::int64_t shared_blocks(std::int64_t a, std::int64_t b) const;
  void run(const Loop& loop, const AttentionCall<float>& call) const;
  void run_attention(const AttentionCall<float>& call, const CachedPart& part, std::int64_t task,
                     std::byte* scratch) const;
  // What follows: cached_decode.cpp.
  std::size_t decode_bytes() const;
  std::int64_t state_stride() const;
  struct DecodeCut {
    std::int64_t sequence, kv_head, first_block;
  };
  int decode_rows(const AttentionCall<float>& call, const DecodeCut& cut, KeyRange range, DecodeRow* rows) const;
  void run_decode(const AttentionCall<float>& call, const CachedPart& part, std::int64_t task,
                  std::byte* scratch) const;
  void run_fold(const AttentionCall<float>& call, const CachedPart& part, std::int64_t kv_head,
                std::byte* scratch) const;

  const AttentionShape& shape_;
  const AttentionOptions& options_;
  const CachedKeys& keys_;
  const KernelTable& table_;
  Schedule<float> schedule_;
  std::int64_t group_;
  bool decode_, attending_ = false, sharing_ = false, split_ = false;
  std::int64_t workers_ = 1;
  std::int64_t piece_ = 0;          // blocks of a piece, where split_
  std::int64_t decoding_ = 0;       // sequences that decode
  std::int64_t elements_ = 0;       // floats that are left of rows between tasks
  Loop first_, second_;             // the second waits for the first
  std::int64_t* order_ = nullptr;   // the sequences that decode; those that begin alike stand side by side
  std::int64_t* places_ = nullptr;  // (sequences) where in state_ their rows are
  float* state_ = nullptr;
  std::byte* scratch_ = nullptr;
};

}  // namespace multihead

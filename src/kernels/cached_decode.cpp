// SPDX-License-Identifier: Apache-2.0
// Tasks of the decode kernel for a call over cached keys.
#include <algorithm>

#include "kernels/cached_schedule.hpp"
#include "kernels/decode_task.hpp"

namespace multihead {

std::size_t CachedSchedule::decode_bytes() const {
  return decode_scratch_elements(kDecodeRows, shape_.head_dim, shape_.value_dim) * sizeof(float);
}

std::int64_t CachedSchedule::state_stride() const { return decode_state_elements(shape_.value_dim); }

// Rows [range.begin, range.end) of a sequence and kv head, where the heads of a token stand side by side, for a task
// from a block of keys on. Returns their number.
int CachedSchedule::decode_rows(const AttentionCall<float>& call, const DecodeCut& cut, KeyRange range,
                                DecodeRow* rows) const {
  const Sequence found = sequence(cut.sequence);
  const std::int64_t each = state_elements(found) / (found.q_len * shape_.heads);
  const std::int64_t first = places_[cut.sequence] + cut.kv_head * rows_of(found) * each +
                             (split_ ? (cut.first_block - schedule_.decode_blocks(found).begin) * state_stride() : 0);
  for (std::int64_t r = range.begin; r < range.end; ++r) {
    DecodeRow& row = rows[r - range.begin];
    row = schedule_.decode_row(call, found, r / group_, cut.kv_head * group_ + r % group_);
    if (each > 0) row.state = state_ + first + r * each;
  }
  return static_cast<int>(range.end - range.begin);
}

void CachedSchedule::run_decode(const AttentionCall<float>& call, const CachedPart& part, std::int64_t task,
                                std::byte* scratch) const {
  using Kind = CachedPart::Kind;
  using Leaves = DecodeTask::Leaves;
  const std::int64_t a_head = part.tasks / shape_.kv_heads, kv_head = task / a_head;
  const std::int64_t count = pieces(part.blocks), chunk = task % a_head / count;
  const bool prefix = part.kind == Kind::prefix;
  KeyRange blocks = part.blocks;
  if (split_) blocks.begin += task % count * piece_, blocks.end = std::min(blocks.end, blocks.begin + piece_);
  DecodeTask next = schedule_.decode_task(blocks, scratch);
  DecodeRow rows[kDecodeRows];
  const std::int64_t member = prefix ? order_[part.sequence] : part.sequence;  // all have its pages
  for (std::int64_t i = part.sequence; prefix && i < part.end; ++i)
    next.count +=
        decode_rows(call, {order_[i], kv_head, next.first_block}, {0, rows_of(sequence(order_[i]))}, rows + next.count);
  if (!prefix) next.count = decode_rows(call, {member, kv_head, next.first_block}, chunk_rows(member, chunk), rows);
  next.rows = rows;
  next.begins = part.kind != Kind::go_on;
  next.leaves = split_ ? Leaves::partials : prefix ? Leaves::state : Leaves::output;
  next.partial_stride = state_stride();
  next.cache = keys_.of(keys_.sequence(keys_.context, member), kv_head);
  (keys_.rows.of_bytes() ? table_.decode_int8 : table_.decode)(next);
}

void CachedSchedule::run_fold(const AttentionCall<float>& call, const CachedPart& part, std::int64_t kv_head,
                              std::byte* scratch) const {
  const CachedRows cache = keys_.of(keys_.sequence(keys_.context, part.sequence), kv_head);
  DecodeFold fold{};
  fold.type = shape_.type, fold.value_dim = static_cast<int>(shape_.value_dim);
  fold.blocks = part.blocks.end - part.blocks.begin, fold.partial_stride = state_stride();
  fold.channel_scales = cache.by_channel ? cache.v_scales : nullptr;
  fold.scratch = reinterpret_cast<float*>(scratch);
  for (std::int64_t r = 0; r < rows_of(sequence(part.sequence)); ++r) {
    decode_rows(call, {part.sequence, kv_head, part.blocks.begin}, {r, r + 1}, &fold.row);
    table_.decode_fold(fold);
  }
}

}  // namespace multihead

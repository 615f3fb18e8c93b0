// SPDX-License-Identifier: Apache-2.0
// Sequences of few queries over keys and values that lie row by row: tasks of the decode kernel.
#include <algorithm>
#include <limits>

#include "core/scratch.hpp"
#include "kernels/schedule.hpp"

namespace multihead {

bool decode_takes(const AttentionOptions& options) {
  return !options.bias.given() && !options.keep_mask.given() && !options.drop_mask.given() &&
         !options.relative_bias.given() && options.dropout.probability == 0;
}

// Whether that kernel may take some sequence: it has few queries, and sums in float.
template <class T>
bool Schedule<T>::may_decode() const {
  const bool few = shape_.q_len <= kDecodeQueries || !options_.cu_seqlens_q.empty() || options_.q_segments.data();
  return sizeof(T) == sizeof(float) && few && shape_.value_dim > 0 && decode_takes(options_) &&
         choose_kernels(options_.target).decode;
}

template <class T>
bool Schedule<T>::decodes(const Sequence& sequence) const {
  return decode_ && sequence.q_len > 0 && sequence.q_len <= kDecodeQueries;
}

// Heads of a kv head whose rows are a task: all that fit, or fewer where threads would be without one.
template <class T>
std::int64_t Schedule<T>::decode_heads(const Sequence& sequence) const {
  std::int64_t heads = std::min(group_, kDecodeRows / sequence.q_len);
  const auto tasks = [&] { return sequences_.count() * shape_.kv_heads * ((group_ + heads - 1) / heads); };
  while (heads > 1 && tasks() < options_.threads) heads = (heads + 1) / 2;
  return heads;
}

template <class T>
std::int64_t Schedule<T>::decode_tasks(const Sequence& sequence) const {
  const std::int64_t each = decode_heads(sequence);
  return shape_.kv_heads * ((group_ + each - 1) / each);
}

// The sequences that may differ: of a batch without any that stand in one entry, the first.
template <class T>
std::int64_t Schedule<T>::unlike_sequences() const {
  const bool alike = options_.cu_seqlens_q.empty() && !options_.q_segments.data();
  return alike ? std::min<std::int64_t>(sequences_.count(), 1) : sequences_.count();
}

// How many tasks there are less for it than blocks of rows of a head.
template <class T>
std::int64_t Schedule<T>::decode_saves() const {
  std::int64_t saved = 0;
  for (std::int64_t index = 0; decode_ && index < unlike_sequences(); ++index) {
    const Sequence sequence = sequences_.at(index);
    if (decodes(sequence)) saved += shape_.heads - decode_tasks(sequence);
  }
  return unlike_sequences() == 1 ? saved * sequences_.count() : saved;
}

template <class T>
std::int64_t Schedule<T>::decode_rows() const {
  std::int64_t most = 0;
  for (std::int64_t index = 0; index < unlike_sequences(); ++index) {
    const Sequence sequence = sequences_.at(index);
    if (sequence.q_len == 0) continue;
    if (!decodes(sequence)) return 0;
    most = std::max(most, sequence.q_len * decode_heads(sequence));
  }
  return most;
}

template <class T>
std::size_t Schedule<T>::decode_bytes() const {
  const std::int64_t rows = std::min<std::int64_t>(std::min(shape_.q_len, kDecodeQueries) * group_, kDecodeRows);
  return decode_ ? round_to_line(decode_scratch_elements(rows, shape_.head_dim, shape_.value_dim) * sizeof(float)) : 0;
}

template <class T>
DecodeRow Schedule<T>::decode_row(const AttentionCall<T>& call, const Sequence& sequence, std::int64_t i,
                                  std::int64_t head) const {
  const std::int64_t b = sequence.batch, at = sequence.q_begin + i;
  const KeyRange keys = sequence.range(i, rules_);
  DecodeRow row{};
  row.q = call.q.at(b, head, at), row.out = call.out.at(b, head, at);
  if constexpr (sizeof(T) == sizeof(float))
    if (call.lse.data()) row.lse = &call.lse(b, head, at);
  if (keys.begin < keys.end) row.visible = keys;
  row.first = std::clamp<std::int64_t>(keys.end, 0, rules_.first);
  row.position = i + sequence.offset;
  row.slope = static_cast<float>(slope(head));
  row.has_sink = !options_.sinks.empty();
  if (row.has_sink) row.sink = options_.sinks[static_cast<std::size_t>(head)];
  return row;
}

template <class T>
KeyRange Schedule<T>::decode_blocks(const Sequence& sequence) const {
  KeyRange keys{std::numeric_limits<std::int64_t>::max(), 0};
  for (std::int64_t i = 0; i < sequence.q_len; ++i) {
    const KeyRange row = sequence.row(i, rules_);
    if (!row.empty()) keys = {std::min(keys.begin, row.begin), std::max(keys.end, row.end)};
  }
  if (keys.end == 0) return {0, 0};
  return {keys.begin / kKeyBlock, (keys.end - 1) / kKeyBlock + 1};
}

template <class T>
DecodeTask Schedule<T>::decode_task(KeyRange blocks, std::byte* scratch) const {
  DecodeTask task{};
  task.type = shape_.type;
  task.head_dim = static_cast<int>(shape_.head_dim), task.value_dim = static_cast<int>(shape_.value_dim);
  task.first_block = blocks.begin, task.last_block = blocks.end;
  task.scale = static_cast<float>(scale_), task.cap = static_cast<float>(cap_);
  task.scratch = reinterpret_cast<float*>(scratch);
  return task;
}

// The rows of a sequence of some heads from one on, which are those of a task.
template <class T>
void Schedule<T>::run_decode(const AttentionCall<T>& call, const KernelTable& table, const Sequence& sequence,
                             std::int64_t head, std::byte* scratch) const {
  static constexpr std::int32_t kPage = 0;  // a sequence is one page
  const std::int64_t b = sequence.batch, kv_head = head / group_;
  const std::int64_t end = std::min(head + decode_heads(sequence), (kv_head + 1) * group_);
  const auto bytes = [](const TypedTensor& rows) {
    return rows.strides[2] * static_cast<std::int64_t>(size_of(rows.type));
  };
  DecodeRow rows[kDecodeRows];
  DecodeTask next = decode_task(decode_blocks(sequence), scratch + task_bytes(false) - decode_bytes());
  for (std::int64_t i = 0; i < sequence.q_len; ++i)
    for (std::int64_t h = head; h < end; ++h) rows[next.count++] = decode_row(call, sequence, i, h);
  next.rows = rows;
  next.cache = {.element = element_of(shape_.type),
                .blocked = false,
                .k = call.k.at(b, kv_head, sequence.k_begin),
                .v = call.v.at(b, kv_head, sequence.k_begin),
                .k_page = 0,
                .v_page = 0,
                .k_row = bytes(call.k),
                .v_row = bytes(call.v),
                .pages = &kPage,
                .page_len = std::numeric_limits<std::int64_t>::max() / 2};
  table.decode(next);
}

#define MULTIHEAD_INSTANTIATE(T)                                                                                    \
  template bool Schedule<T>::may_decode() const;                                                                    \
  template KeyRange Schedule<T>::decode_blocks(const Sequence&) const;                                              \
  template DecodeTask Schedule<T>::decode_task(KeyRange, std::byte*) const;                                         \
  template bool Schedule<T>::decodes(const Sequence&) const;                                                        \
  template std::int64_t Schedule<T>::decode_heads(const Sequence&) const;                                           \
  template std::int64_t Schedule<T>::decode_tasks(const Sequence&) const;                                           \
  template std::int64_t Schedule<T>::unlike_sequences() const;                                                      \
  template std::int64_t Schedule<T>::decode_saves() const;                                                          \
  template std::int64_t Schedule<T>::decode_rows() const;                                                           \
  template std::size_t Schedule<T>::decode_bytes() const;                                                           \
  template DecodeRow Schedule<T>::decode_row(const AttentionCall<T>&, const Sequence&, std::int64_t, std::int64_t)  \
      const;                                                                                                        \
  template void Schedule<T>::run_decode(const AttentionCall<T>&, const KernelTable&, const Sequence&, std::int64_t, \
                                        std::byte*) const;
MULTIHEAD_INSTANTIATE(float)
MULTIHEAD_INSTANTIATE(double)
#undef MULTIHEAD_INSTANTIATE

}  // namespace multihead

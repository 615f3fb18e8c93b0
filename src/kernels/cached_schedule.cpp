// SPDX-License-Identifier: Apache-2.0
// From sequences to parts, and the loops over their tasks.
#include "kernels/cached_schedule.hpp"

#include <algorithm>
#include <limits>

#include "core/parallel.hpp"
#include "core/scratch.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kLeastPiece = 4;  // blocks, of 512 keys: below, what is left of rows costs too much
constexpr std::int64_t kMostElements = std::int64_t{1} << 24;  // floats of what pieces leave: 64 MiB
constexpr std::int64_t kLeastRows = 8;  // as many rows cost a task what one does: the pass over its keys

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

CachedSchedule::CachedSchedule(const AttentionShape& shape, const AttentionOptions& options,
                               const AttentionOptions& of_tasks, const CachedKeys& keys)
    : shape_(shape),
      options_(options),
      keys_(keys),
      table_(choose_kernels(options.target)),
      schedule_(shape, of_tasks),
      group_(shape.heads / shape.kv_heads),
      decode_((keys.rows.of_bytes() ? table_.decode_int8 : table_.decode) && decode_takes(options)) {
  schedule_.over_cache();
  count();
}

Sequence CachedSchedule::sequence(std::int64_t index) const {
  using Kind = Alignment::Kind;
  const auto s = static_cast<std::size_t>(index);
  const auto& starts = options_.cu_seqlens_q;
  Sequence found{.batch = index, .q_len = shape_.q_len};
  if (!starts.empty()) found = {.batch = 0, .q_begin = starts[s], .q_len = starts[s + 1] - starts[s]};
  found.kv_len = keys_.sequence(keys_.context, index).length;
  found.offset = found.kv_len - found.q_len;
  if (options_.alignment.kind() == Kind::top_left) found.offset = 0;
  if (options_.alignment.kind() == Kind::offset) found.offset = options_.alignment.offset();
  if (options_.alignment.kind() == Kind::offsets) found.offset = options_.alignment.offsets()[s];
  if (!options_.prefixes.empty()) found.prefix = options_.prefixes[s];
  return found;
}

bool CachedSchedule::decodes(const Sequence& sequence) const {
  return decode_ && sequence.q_len <= kDecodeQueries && schedule_.decode_blocks(sequence).end > 0;
}

// The rows of a kv head that a task takes, in chunks that are alike.
KeyRange CachedSchedule::chunk_rows(std::int64_t index, std::int64_t chunk) const {
  const std::int64_t rows = rows_of(sequence(index)), each = divide_up(rows, divide_up(rows, kDecodeRows));
  return {chunk * each, std::min(rows, (chunk + 1) * each)};
}

std::int64_t CachedSchedule::state_elements(const Sequence& sequence) const {
  const KeyRange seen = schedule_.decode_blocks(sequence);
  const std::int64_t rows = sequence.q_len * shape_.heads * state_stride();
  return split_ ? rows * (seen.end - seen.begin) : sharing_ ? rows : 0;
}

std::int64_t CachedSchedule::pieces(KeyRange blocks) const {
  return split_ ? divide_up(std::max<std::int64_t>(blocks.end - blocks.begin, 0), piece_) : 1;
}

// How many tasks there are decides whether decodes are split: where each of few threads has less than two.
void CachedSchedule::count() {
  std::int64_t tasks = 0, decode_blocks = 0, split_elements = 0;
  for (std::int64_t s = 0; s < keys_.sequences; ++s) {
    const Sequence found = sequence(s);
    if (!decodes(found)) {
      tasks += blocks_of(found.q_len) * shape_.heads;
      attending_ |= found.q_len > 0;
      continue;
    }
    const KeyRange seen = schedule_.decode_blocks(found);
    const std::int64_t chunks = divide_up(rows_of(found), kDecodeRows) * shape_.kv_heads;
    ++decoding_;
    tasks += chunks;
    decode_blocks += (seen.end - seen.begin) * chunks;
    split_elements += found.q_len * shape_.heads * state_stride() * (seen.end - seen.begin);
  }
  const RangeRules& rules = schedule_.rules();
  const std::int64_t threads = options_.threads;
  piece_ = std::max(kLeastPiece, divide_up(decode_blocks, 4 * threads));
  split_ = threads > 1 && tasks < 2 * threads && decode_blocks > piece_ && rules.first == 0 &&
           split_elements <= kMostElements;
  workers_ = std::clamp<std::int64_t>(split_ ? tasks + decode_blocks : tasks, 1, threads);
  sharing_ = decoding_ > 1 && options_.window.left < 0;
  for (std::int64_t s = 0; (split_ || sharing_) && s < keys_.sequences; ++s)
    if (const Sequence found = sequence(s); decodes(found)) elements_ += state_elements(found);
}

std::size_t CachedSchedule::worker_bytes() const {
  return attention_bytes() + (decoding_ > 0 ? round_to_line(decode_bytes()) : 0);
}

std::size_t CachedSchedule::bytes() const {
  const auto sequences = static_cast<std::size_t>(keys_.sequences);
  return schedule_.table_bytes() + 2 * round_to_line(2 * sequences * sizeof(CachedPart)) +
         2 * round_to_line(sequences * sizeof(std::int64_t)) +
         round_to_line(static_cast<std::size_t>(elements_) * sizeof(float)) +
         static_cast<std::size_t>(workers_) * worker_bytes();
}

// The parts of both loops, the longest tasks first.
void CachedSchedule::plan(std::byte* memory) {
  const auto sequences = static_cast<std::size_t>(keys_.sequences);
  const auto take = [&]<class E>(E*& part, std::size_t count) {
    part = reinterpret_cast<E*>(memory);
    memory += round_to_line(count * sizeof(E));
  };
  take(first_.parts, 2 * sequences), take(second_.parts, 2 * sequences);
  take(order_, sequences), take(places_, sequences);
  take(state_, static_cast<std::size_t>(elements_));
  scratch_ = memory;
  std::int64_t place = 0, decoding = 0;
  for (std::int64_t s = 0; s < keys_.sequences; ++s) {
    const Sequence found = sequence(s);
    if (found.q_len == 0) continue;
    if (decodes(found)) {
      places_[s] = place, place += state_elements(found);
      order_[decoding++] = s;
      continue;
    }
    const KeyRange last = found.row(found.q_len - 1, schedule_.rules());
    const auto keys = static_cast<double>(last.end - last.begin);
    const std::int64_t rows = std::clamp<std::int64_t>(found.q_len, kLeastRows, kRowBlock);
    first_.parts[first_.count++] = {.kind = CachedPart::Kind::attention,
                                    .sequence = s,
                                    .tasks = blocks_of(found.q_len) * shape_.heads,
                                    .cost = keys * static_cast<double>(rows)};
  }
  if (sharing_)
    plan_prefixes();
  else
    for (std::int64_t i = 0; i < decoding; ++i) plan_decode(order_[i], sequence(order_[i]), 0);
  for (Loop* loop : {&first_, &second_}) {
    std::sort(loop->parts, loop->parts + loop->count,
              [](const CachedPart& a, const CachedPart& b) { return a.cost > b.cost; });
    for (CachedPart* part = loop->parts; part < loop->parts + loop->count; ++part)
      part->first_task = loop->tasks, loop->tasks += part->tasks;
  }
}

// shared: blocks that a prefix has done.
void CachedSchedule::plan_decode(std::int64_t index, const Sequence& sequence, std::int64_t shared) {
  using Kind = CachedPart::Kind;
  const KeyRange seen = schedule_.decode_blocks(sequence), own{std::max(seen.begin, shared), seen.end};
  CachedPart part{.kind = shared > 0 ? Kind::go_on : Kind::decode, .sequence = index, .blocks = own};
  const std::int64_t count = pieces(own), each = split_ ? piece_ : own.end - own.begin;
  const KeyRange rows = chunk_rows(index, 0);
  part.tasks = count * divide_up(rows_of(sequence), kDecodeRows) * shape_.kv_heads;
  part.cost = static_cast<double>(std::min(each, own.end - own.begin) * kKeyBlock * std::max(rows.end, kLeastRows));
  Loop& loop = shared > 0 && !split_ ? second_ : first_;
  if (count > 0) loop.parts[loop.count++] = part;
  if (split_)
    second_.parts[second_.count++] = {
        .kind = Kind::fold, .sequence = index, .blocks = seen, .tasks = shape_.kv_heads, .cost = part.cost};
}

// Whole blocks that two sequences both begin with, in the same pages, and that both have rows for.
std::int64_t CachedSchedule::shared_blocks(std::int64_t a, std::int64_t b) const {
  const CachedSequence x = keys_.sequence(keys_.context, a), y = keys_.sequence(keys_.context, b);
  const std::int64_t length = std::min(x.length, y.length), pages = divide_up(length, keys_.rows.page_len);
  std::int64_t same = 0;
  while (same < pages && x.pages[same] == y.pages[same] && x.pages[same] >= 0) ++same;
  const std::int64_t whole = std::min(length, same * keys_.rows.page_len) / kKeyBlock;
  return std::min({whole, schedule_.decode_blocks(sequence(a)).end, schedule_.decode_blocks(sequence(b)).end});
}

// Sequences that begin with the same pages read those once, as many as have rows for one task. One joins unless it
// halves what the others share.
void CachedSchedule::plan_prefixes() {
  const auto before = [&](std::int64_t a, std::int64_t b) {
    const CachedSequence x = keys_.sequence(keys_.context, a), y = keys_.sequence(keys_.context, b);
    const auto pages_of = [&](const CachedSequence& s) { return s.pages + divide_up(s.length, keys_.rows.page_len); };
    const auto order = std::lexicographical_compare_three_way(x.pages, pages_of(x), y.pages, pages_of(y));
    return order != 0 ? order < 0 : a < b;
  };
  std::sort(order_, order_ + decoding_, before);
  for (std::int64_t begin = 0, end; begin < decoding_; begin = end) {
    std::int64_t rows = rows_of(sequence(order_[begin])), shared = 0;
    for (end = begin + 1; end < decoding_; ++end) {
      const std::int64_t more = rows_of(sequence(order_[end])), next = shared_blocks(order_[end - 1], order_[end]);
      if (next == 0 || rows + more > kDecodeRows || 2 * next < shared) break;
      shared = shared == 0 ? next : std::min(shared, next), rows += more;
    }
    if (shared > 0)
      first_.parts[first_.count++] = {.kind = CachedPart::Kind::prefix,
                                      .sequence = begin,
                                      .end = end,
                                      .blocks = {0, shared},
                                      .tasks = pieces({0, shared}) * shape_.kv_heads,
                                      .cost = static_cast<double>((split_ ? std::min(piece_, shared) : shared) *
                                                                  kKeyBlock * std::max(rows, kLeastRows))};
    for (std::int64_t i = begin; i < end; ++i) plan_decode(order_[i], sequence(order_[i]), shared);
  }
}

void CachedSchedule::run_attention(const AttentionCall<float>& call, const CachedPart& part, std::int64_t task,
                                   std::byte* scratch) const {
  const Sequence found = sequence(part.sequence);
  // Head by head, whose keys then stay in the cache, the last rows first.
  const std::int64_t count = blocks_of(found.q_len), head = task / count, kv_head = head / group_;
  const std::int64_t row = (count - 1 - task % count) * kRowBlock;
  KeyRange visible[kRowBlock];
  AttentionTask<float> next =
      schedule_.task(call, found, head, row, std::min<std::int64_t>(kRowBlock, found.q_len - row), visible);
  const CachedRows rows = keys_.of(keys_.sequence(keys_.context, part.sequence), kv_head);
  next.cache = &rows;
  next.first_block_id = static_cast<std::uint64_t>(part.sequence * shape_.kv_heads + kv_head) *
                        static_cast<std::uint64_t>(divide_up(shape_.kv_len, kKeyBlock) * kKeyBlock);
  schedule_.run_task(next, table_, scratch);
}

void CachedSchedule::run(const Loop& loop, const AttentionCall<float>& call) const {
  const std::size_t each = worker_bytes();
  parallel_for(loop.tasks, options_.threads, options_.parallel_for, [&](int worker, std::int64_t index) {
    const CachedPart& part = *(std::upper_bound(loop.parts, loop.parts + loop.count, index,
                                                [](std::int64_t i, const CachedPart& p) { return i < p.first_task; }) -
                               1);
    std::byte* const scratch = scratch_ + static_cast<std::size_t>(worker) * each;
    const std::int64_t task = index - part.first_task;
    if (part.kind == CachedPart::Kind::attention)
      run_attention(call, part, task, scratch);
    else if (part.kind == CachedPart::Kind::fold)
      run_fold(call, part, task, scratch + attention_bytes());
    else
      run_decode(call, part, task, scratch + attention_bytes());
  });
}

void CachedSchedule::run(const char* function, const AttentionCall<float>& call, std::byte* memory) {
  schedule_.prepare(function, memory);
  plan(memory + schedule_.table_bytes());
  for (std::int64_t worker = 0; attending_ && worker < workers_; ++worker)
    schedule_.open_worker(scratch_ + static_cast<std::size_t>(worker) * worker_bytes());
  run(first_, call);
  run(second_, call);
}

}  // namespace multihead

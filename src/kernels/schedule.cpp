// SPDX-License-Identifier: Apache-2.0
// From a call to its tasks: ranges, terms of the scores, and the loop over threads.
#include "kernels/schedule.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "core/dropout.hpp"
#include "core/element.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "core/validate.hpp"
#include "kernels/statistics.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kPieces = 3, kPieceRows = kRowBlock / kPieces;

// The first row of a row block that is counted from a head's last one.
std::int64_t first_row(const Sequence& sequence, std::int64_t block) {
  return (blocks_of(sequence.q_len) - 1 - block) * kRowBlock;
}

// The rows of a sequence and the keys from its first on; broadcast axes have stride 0.
DenseTerm dense_term(const BroadcastView& view, Type type, std::size_t element, const Sequence& sequence,
                     std::int64_t head, std::int64_t row) {
  if (!view.data) return {};
  const auto stride = [&](std::size_t axis) { return view.extents[axis] == 1 ? 0 : view.strides[axis]; };
  const std::int64_t place = sequence.batch * stride(0) + head * stride(1) + (sequence.q_begin + row) * stride(2) +
                             sequence.k_begin * stride(3);
  return {static_cast<const std::byte*>(view.data) + place * static_cast<std::int64_t>(element), stride(2), stride(3),
          type};
}

}  // namespace

template <class T>
Schedule<T>::Schedule(const AttentionShape& shape, const AttentionOptions& options, double unit)
    : shape_(shape),
      options_(options),
      unit_(unit),
      group_(shape.heads / shape.kv_heads),
      needs_(needs()),
      kept_blocks_(kept_blocks()),
      decode_(may_decode()),
      rules_(options),
      sequences_(shape, options) {
  const FloatMode mode;
  const double scale = options_.scale ? *options_.scale : default_scale(shape_.head_dim);
  scale_ = static_cast<T>(options_.softcap > 0 ? scale / options_.softcap : scale * unit_);
  cap_ = static_cast<T>(options_.softcap * unit_);
}

template <class T>
void Schedule<T>::gather(const StatisticsRequest<T>& request, const RowStatistics<T>& to) {
  if (!gathers(to)) return;
  request_ = &request, gathered_ = &to, decode_ = false;
  needs_.statistics_lines = statistics_lines(statistics_counts(request, to));
}

template <class T>
std::size_t Schedule<T>::distances() const {
  return options_.relative_bias.given() ? 2 * static_cast<std::size_t>(options_.relative_bias.max_distance) + 1 : 0;
}

template <class T>
std::size_t Schedule<T>::table_bytes() const {
  return sequences_.scratch_bytes() + round_to_line(static_cast<std::size_t>(shape_.heads) * distances() * sizeof(T));
}

template <class T>
TaskNeeds Schedule<T>::needs() const {
  const Bias& bias = options_.bias;
  const bool plain = bias.type == kTypeOf<T> && bias.view.extents[3] != 1 && bias.view.strides[3] == 1;
  const KernelTable& table = choose_kernels(options_.target);
  const bool tiles = sizeof(T) == sizeof(float) && table.tiles;
  return {.head_dim = shape_.head_dim,
          .value_dim = shape_.value_dim,
          .type = shape_.type,
          .bias = bias.given(),
          .masks = options_.keep_mask.given() || options_.drop_mask.given() || RangeRules(options_).first > 0,
          .distances = options_.relative_bias.given(),
          .bias_staged = bias.given() && !plain,
          .dropout = options_.dropout.probability > 0,
          .tiles = tiles,
          .keeps_rows = !(shape_.type == Type::bfloat16 ? table.turns_values : tiles)};
}

// Blocks that a worker keeps as the target multiplies them for the tasks of a head, where it has more than one. Of rows
// that are too many to stay near the core: a stretch of them, for tasks side by side.
template <class T>
std::int64_t Schedule<T>::kept_blocks() const {
  // Bytes: of 8,192 keys where value_dim is 64, in parts of 1,280, as floats of 2,048 with as many channels.
  constexpr std::size_t kMost = std::size_t{1} << 20, kStretch = std::size_t{1} << 18;
  if (shape_.q_len <= kRowBlock || shape_.value_dim == 0) return 0;
  const auto fit = [&](std::size_t bytes) {
    return static_cast<std::int64_t>(bytes / (static_cast<std::size_t>(kept_elements(needs_)) * sizeof(T)));
  };
  const std::int64_t all = (shape_.kv_len + kKeyBlock - 1) / kKeyBlock;
  return all <= fit(kMost) ? all : fit(needs_.keeps_rows ? kStretch : kMost);
}

constexpr std::int64_t kMostAbreast = 4;

// How many row blocks of a head a worker takes through the keys side by side: where keys and values are more than a
// worker keeps, or more than stay near the core, so that each stretch of them is split, widened or fetched once for all
// of these rows.
template <class T>
std::int64_t Schedule<T>::abreast() const {
  constexpr std::int64_t kTasksAThread = 16;  // with fewer, threads would wait for the last one
  const bool plain = !needs_.bias && !needs_.masks && !needs_.distances && !needs_.dropout &&
                     needs_.statistics_lines == 0 && !needs_.cached;
  const bool in_stretches = kept_blocks_ > 0 && (needs_.type != Type::bfloat16 || needs_.keeps_rows);
  const std::int64_t tasks = shape_.batch * shape_.heads * blocks_of(shape_.q_len);
  return plain && in_stretches && kept_blocks_ * kKeyBlock < shape_.kv_len && tasks >= kTasksAThread * options_.threads
             ? kMostAbreast
             : 1;
}

template <class T>
std::size_t Schedule<T>::task_bytes(bool weights) const {
  const auto remembered = weights ? 0 : static_cast<std::size_t>(finite_entries()) * sizeof(std::uint64_t);
  TaskNeeds needs = needs_;
  needs.weights = weights;
  const auto blocks = weights ? 0 : static_cast<std::size_t>(kept_blocks_);
  const auto tasks = weights ? 1 : static_cast<std::size_t>(abreast());
  return round_to_line(remembered) + tasks * round_to_line(attention_scratch_elements(needs) * sizeof(T)) +
         round_to_line(blocks * sizeof(std::uint64_t)) +
         blocks * static_cast<std::size_t>(kept_elements(needs_)) * sizeof(T) + (weights ? 0 : decode_bytes());
}

// Where some row may see a block in part and a head has more than one task. Of a fixed number, enough for 65,536 keys,
// so that scratch does not grow with length.
template <class T>
std::int64_t Schedule<T>::finite_entries() const {
  constexpr std::int64_t kEntries = 512;
  const bool partial = options_.causal || options_.window.left >= 0 || options_.window.right >= 0 ||
                       options_.keep_mask.given() || options_.drop_mask.given() || options_.bias.given();
  return partial && shape_.q_len > kRowBlock ? kEntries : 0;
}

template <class T>
void Schedule<T>::prepare(const char* function, std::byte* tables) {
  sequences_.prepare(function, tables);
  if (distances() == 0) return;
  by_distance_ = reinterpret_cast<T*>(tables + sequences_.scratch_bytes());
  fill_distances();
}

template <class T>
void Schedule<T>::fill_distances() {
  const FloatMode mode;
  const RelativeBias& relative = options_.relative_bias;
  const std::int64_t far = relative.max_distance;
  const auto count = static_cast<std::int64_t>(distances());
  for (std::int64_t r = -far; r <= far; ++r) {
    const int bucket = relative_bucket(r, static_cast<int>(relative.extents[0]), relative.bidirectional, far);
    for (std::int64_t head = 0; head < shape_.heads; ++head) {
      const std::int64_t at = bucket * relative.strides[0] + head * relative.strides[1];
      by_distance_[head * count + far + r] =
          static_cast<T>(element_as_double(relative.data, relative.type, at) * unit_);
    }
  }
}

template <class T>
T Schedule<T>::slope(std::int64_t head) const {
  const auto& slopes = options_.alibi_slopes;
  return slopes.empty() ? T(0) : static_cast<T>(-slopes[static_cast<std::size_t>(head)] * unit_);
}

template <class T>
ScoreTerms<T> Schedule<T>::terms(const Sequence& sequence, std::int64_t head, std::int64_t row) const {
  const auto h = static_cast<std::size_t>(head);
  ScoreTerms<T> terms;
  terms.cap = cap_;
  terms.slope = slope(head);
  if (by_distance_) {
    terms.by_distance = by_distance_ + h * distances();
    terms.max_distance = options_.relative_bias.max_distance;
  }
  if (by_key_) terms.by_key = by_key_ + (sequence.batch * shape_.heads + head) * shape_.kv_len + sequence.k_begin;
  terms.position = row + sequence.offset;
  terms.bias = dense_term(options_.bias.view, options_.bias.type, size_of(options_.bias.type), sequence, head, row);
  terms.bias_unit = static_cast<T>(unit_);
  terms.bias_floor = std::numeric_limits<T>::lowest();
  if (unit_ > 1) terms.bias_floor /= static_cast<T>(unit_ * (1 + 0x1p-20));
  terms.keep = dense_term(options_.keep_mask.view, {}, 1, sequence, head, row);
  terms.drop = dense_term(options_.drop_mask.view, {}, 1, sequence, head, row);
  terms.first = rules_.first, terms.left = rules_.left;
  return terms;
}

template <class T>
DropoutTask<T> Schedule<T>::dropout(const Sequence& sequence, std::int64_t head, std::int64_t row) const {
  const Dropout& dropout = options_.dropout;
  if (!needs_.dropout) return {};
  return {.bound = drop_bound(dropout.probability),
          .factor = static_cast<T>(1 / (1 - dropout.probability)),
          .seed = dropout.seed,
          .stream = dropout.stream,
          .bh = static_cast<std::uint32_t>(sequence.batch * shape_.heads + head),
          .row = static_cast<std::uint32_t>(sequence.q_begin + row),
          .key = sequence.k_begin};
}

// Without a gap neither end of a range falls from row to row: where the first and the last see the same, so do all.
template <class T>
void Schedule<T>::fill_visible(const Sequence& sequence, std::int64_t row, std::int64_t rows, KeyRange* visible) const {
  const KeyRange first = sequence.row(row, rules_);
  const bool alike = rules_.first == 0 && !first.empty() && first == sequence.row(row + rows - 1, rules_);
  for (std::int64_t r = 0; r < rows; ++r) visible[r] = alike ? first : sequence.row(row + r, rules_);
}

template <class T>
AttentionTask<T> Schedule<T>::task(const AttentionCall<T>& call, const Sequence& sequence, std::int64_t head,
                                   std::int64_t row, std::int64_t rows, KeyRange* visible) const {
  const std::int64_t b = sequence.batch, kv = head / group_, i = sequence.q_begin + row;
  AttentionTask<T> task{};
  task.q = {call.q.at(b, head, i), call.q.strides[2], call.q.type};
  task.k = {call.k.at(b, kv, sequence.k_begin), call.k.strides[2], call.k.type};
  task.v = {call.v.at(b, kv, sequence.k_begin), call.v.strides[2], call.v.type};
  task.out = call.out.at(b, head, i);
  task.out_stride = call.out.strides[2];
  if (call.lse.data()) task.lse = &call.lse(b, head, i), task.lse_stride = call.lse.stride(2);
  const std::int64_t place = (b * shape_.heads + head) * shape_.q_len + i;
  if (call.row_max) task.row_max = call.row_max + place;
  if (call.row_sum) task.row_sum = call.row_sum + place;
  fill_visible(sequence, row, rows, visible);
  task.visible = visible;
  task.kv_len = sequence.kv_len;
  task.first_block_id =
      static_cast<std::uint64_t>(b * shape_.kv_heads + kv) * static_cast<std::uint64_t>(shape_.kv_len) +
      static_cast<std::uint64_t>(sequence.k_begin);
  task.rows = static_cast<int>(rows);
  task.head_dim = static_cast<int>(shape_.head_dim);
  task.value_dim = static_cast<int>(shape_.value_dim);
  task.scale = scale_;
  task.terms = terms(sequence, head, row);
  task.dropout = dropout(sequence, head, row);
  task.has_sink = !options_.sinks.empty();
  if (task.has_sink) task.sink = options_.sinks[static_cast<std::size_t>(head)];
  task.needs = needs_;
  task.needs.keeps_rows =
      needs_.keeps_rows &&
      (size_of(shape_.type) == 2 || (blocks_of(sequence.q_len) > 1 && (task.k.lie_apart() || task.v.lie_apart())));
  return task;
}

// The memory of a worker: what it knows of blocks of values, its scratch, and the blocks that it keeps.
template <class T>
struct Schedule<T>::Worker {
  std::uint64_t *finite, *kept_ids;
  T *scratch, *kept, *beside;

  // The scratch of the first task; those beside it come behind the rest.
  Worker(std::byte* memory, std::int64_t finite_entries, const TaskNeeds& needs, std::int64_t kept_blocks) {
    const auto take = [&]<class E>(E*& part, std::size_t count) {
      part = reinterpret_cast<E*>(memory);
      memory += round_to_line(count * sizeof(E));
    };
    take(finite, static_cast<std::size_t>(finite_entries));
    take(scratch, attention_scratch_elements(needs));
    take(kept_ids, static_cast<std::size_t>(kept_blocks));
    kept = reinterpret_cast<T*>(memory);
    beside = kept + kept_blocks * kept_elements(needs);
  }
};

template <class T>
void Schedule<T>::open_worker(std::byte* scratch) const {
  const Worker its(scratch, finite_entries(), needs_, kept_blocks_);
  std::fill_n(its.finite, finite_entries(), 0);
  std::fill_n(its.kept_ids, kept_blocks_, 0);
}

template <class T>
void Schedule<T>::place_task(AttentionTask<T>& task, std::byte* scratch, std::int64_t beside) const {
  const Worker its(scratch, finite_entries(), needs_, kept_blocks_);
  const std::size_t elements = round_to_line(attention_scratch_elements(needs_) * sizeof(T)) / sizeof(T);
  task.finite = its.finite, task.finite_entries = finite_entries();
  task.kept = its.kept, task.kept_ids = its.kept_ids, task.kept_blocks = kept_blocks_;
  task.scratch = beside == 0 ? its.scratch : its.beside + static_cast<std::size_t>(beside - 1) * elements;
}

template <class T>
void Schedule<T>::run_task(AttentionTask<T>& task, const KernelTable& table, std::byte* scratch) const {
  place_task(task, scratch, 0);
  table.kernels<T>().attention(task);
}

// How many of the last tasks are run in pieces, so that a thread waits for the others at the end for no longer than a
// piece takes: where tasks are few and alike. Under a causal mask the last ones are short, and tiles take whole ones.
// Which rows share a task changes no bit of them.
template <class T>
std::int64_t Schedule<T>::cut_tasks() const {
  const std::int64_t threads = options_.threads, all = tasks();
  const bool few = threads > 1 && all >= 2 * threads && all < 16 * threads;
  return few && !options_.causal && !needs_.tiles ? threads : 0;
}

template <class T>
std::int64_t Schedule<T>::pieces() const {
  std::int64_t all = tasks();
  for (std::int64_t index = tasks() - cut_tasks(); index < tasks(); ++index) {
    const Sequence sequence = sequences_.of_block(index / shape_.heads);
    const std::int64_t blocks = blocks_of(sequence.q_len);
    const std::int64_t first = blocks - 1 - (index - sequence.first_block * shape_.heads) % blocks;
    all += (std::min<std::int64_t>(kRowBlock, sequence.q_len - first * kRowBlock) - 1) / kPieceRows;
  }
  return all - decode_saves();
}

template <class T>
void Schedule<T>::run(const AttentionCall<T>& call, const KernelTable& table, std::byte* scratch) const {
  const std::size_t bytes = task_bytes(false);
  const std::int64_t together = abreast();
  const bool decode = call.out.data && !call.row_max && !call.row_sum;
  const auto memory = [&](std::int64_t worker) { return scratch + static_cast<std::size_t>(worker) * bytes; };
  for (std::int64_t worker = 0; worker < std::min<std::int64_t>(options_.threads, tasks()); ++worker)
    open_worker(memory(worker));
  const std::int64_t cut = cut_tasks(), whole = tasks() - cut;
  parallel_for(whole + cut * kPieces, options_.threads, options_.parallel_for, [&](int worker, std::int64_t at) {
    // Head by head, whose keys then stay in the cache; the last rows first: under a causal mask they are the longest,
    // and the short ones fill the end.
    const std::int64_t piece = at < whole ? 0 : (at - whole) % kPieces;
    const std::int64_t index = at < whole ? at : whole + (at - whole) / kPieces;
    const Sequence sequence = sequences_.of_block(index / shape_.heads);
    const std::int64_t blocks = blocks_of(sequence.q_len);
    const std::int64_t local = index - sequence.first_block * shape_.heads, block = local % blocks;
    if (decode && decodes(sequence)) {
      if (piece == 0 && local % group_ % decode_heads(sequence) == 0)
        run_decode(call, table, sequence, local, memory(worker));
      return;
    }
    if (block % together != 0) return;
    Rows rows{local / blocks, block, std::min(together, blocks - block)};
    if (at >= whole) rows.offset = piece * kPieceRows, rows.most = kPieceRows;
    rows.count > 1 ? run_abreast(call, table, sequence, rows, memory(worker))
                   : run_rows(call, table, sequence, rows, memory(worker));
  });
}

template <class T>
void Schedule<T>::run_rows(const AttentionCall<T>& call, const KernelTable& table, const Sequence& sequence,
                           const Rows& rows, std::byte* scratch) const {
  const std::int64_t row = first_row(sequence, rows.first) + rows.offset;
  const std::int64_t count = std::min(rows.most, sequence.q_len - row);
  if (count <= 0) return;  // the last block has not so many pieces
  KeyRange visible[kRowBlock];
  AttentionTask<T> next = task(call, sequence, rows.head, row, count, visible);
  if (!gathered_) return run_task(next, table, scratch);
  const StatisticsTask<T> statistics = statistics_task(*request_, *gathered_, sequence, rows.head, row);
  next.statistics = &statistics;
  run_task(next, table, scratch);
}

template <class T>
void Schedule<T>::run_abreast(const AttentionCall<T>& call, const KernelTable& table, const Sequence& sequence,
                              const Rows& rows, std::byte* scratch) const {
  KeyRange visible[kMostAbreast][kRowBlock];
  AttentionTask<T> tasks[kMostAbreast] = {};
  for (std::int64_t i = 0; i < rows.count; ++i) {
    const std::int64_t row = first_row(sequence, rows.first + i);
    const std::int64_t count = std::min<std::int64_t>(kRowBlock, sequence.q_len - row);
    tasks[i] = task(call, sequence, rows.head, row, count, visible[i]);
    place_task(tasks[i], scratch, i);
  }
  const bool in_parts = goes_in_parts(tasks[0]);
  const std::int64_t keys = in_parts ? kept_blocks_ * kKeyBlock : std::max<std::int64_t>(sequence.kv_len, 1);
  for (int part = 0; part == 0 || part * keys < sequence.kv_len; ++part)
    for (AttentionTask<T>* next = tasks; next < tasks + rows.count; ++next) {
      next->in_parts = in_parts, next->part = part, next->pauses = (part + 1) * keys < sequence.kv_len;
      table.kernels<T>().attention(*next);
    }
}

template class Schedule<float>;
template class Schedule<double>;

std::string terms_text(const AttentionOptions& options) {
  std::string text;
  for (const auto& [given, name] :
       {std::pair{options.softcap > 0, "softcap"}, std::pair{!options.alibi_slopes.empty(), "alibi_slopes"},
        std::pair{options.relative_bias.given(), "relative_bias"}, std::pair{options.bias.given(), "bias"},
        std::pair{options.keep_mask.given(), "keep_mask"}, std::pair{options.drop_mask.given(), "drop_mask"},
        std::pair{!options.sinks.empty(), "sinks"}, std::pair{options.dropout.probability > 0, "dropout"}})
    if (given) text += (text.empty() ? "" : ", ") + std::string(name);
  return text.empty() ? "none" : text;
}

}  // namespace multihead

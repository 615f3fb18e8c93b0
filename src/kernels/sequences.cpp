// SPDX-License-Identifier: Apache-2.0
// Sequences of a call: from the batch, from cu_seqlens, from runs of segment ids.
#include "kernels/sequences.hpp"

#include <algorithm>

#include "core/scratch.hpp"
#include "core/validate.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kBeyond = std::int64_t{1} << 52;  // farther than any position from any other

// Equal ids that stand together in one row of ids.
struct Run {
  std::int64_t id, begin, length;
};

// Calls body(run) for the runs of ids[0 .. length) with a stride.
template <class Body>
void each_run(const MatrixView<const std::int64_t>& ids, std::int64_t batch, std::int64_t length, const Body& body) {
  for (std::int64_t begin = 0; begin < length;) {
    std::int64_t end = begin + 1;
    const std::int64_t id = ids(batch, begin);
    while (end < length && ids(batch, end) == id) ++end;
    body(Run{id, begin, end - begin});
    begin = end;
  }
}

// Sorts by id; an id that two runs have is refused.
void sort_runs(const char* function, const char* name, std::span<Run> runs) {
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.id < b.id; });
  for (std::size_t i = 1; i < runs.size(); ++i)
    if (runs[i].id == runs[i - 1].id)
      fail(ErrorCode::bad_option, std::string(function) + ": " + name + " has id " + std::to_string(runs[i].id) +
                                      " in two runs of a batch entry; equal ids must stand together");
}

// The sum of clamp(i + shift, low, high) over 0 <= i < n.
double sum_clamped(std::int64_t n, std::int64_t shift, std::int64_t low, std::int64_t high) {
  const std::int64_t rising = std::clamp<std::int64_t>(low - shift, 0, n);  // the first i above low
  const std::int64_t flat = std::clamp<std::int64_t>(high - shift, rising, n);
  const auto steps = static_cast<double>(flat - rising);
  return static_cast<double>(rising) * static_cast<double>(low) + steps * static_cast<double>(rising + shift) +
         steps * (steps - 1) / 2 + static_cast<double>(n - flat) * static_cast<double>(high);
}

}  // namespace

std::int64_t blocks_of(std::int64_t rows) { return (rows + kRowBlock - 1) / kRowBlock; }

RangeRules::RangeRules(const AttentionOptions& options)
    : causal(options.causal),
      left(options.window.left < 0 ? kBeyond : std::min(options.window.left, kBeyond)),
      right(options.window.right < 0 ? kBeyond : std::min(options.window.right, kBeyond)),
      first(options.window.left < 0 ? 0 : options.window.first) {}

KeyRange Sequence::range(std::int64_t i, const RangeRules& rules) const {
  const std::int64_t p = i + offset;
  std::int64_t end = std::min(kv_len, p + rules.right + 1);
  if (rules.causal) end = std::min(end, std::max(p + 1, prefix));
  return {std::max<std::int64_t>(p - rules.left, 0), end};
}

KeyRange Sequence::row(std::int64_t i, const RangeRules& rules) const {
  KeyRange keys = range(i, rules);
  if (rules.first > 0) {
    if (keys.end <= keys.begin) keys.end = std::min(keys.end, rules.first);
    keys.begin = 0;
  }
  return keys.begin < keys.end ? keys : KeyRange{0, 0};
}

bool Sequence::outside_gap(std::int64_t i, std::int64_t key, const RangeRules& rules) const {
  return key < rules.first || key >= i + offset - rules.left;
}

KeyRange Sequence::rows_of(std::int64_t k_from, std::int64_t k_to, const RangeRules& rules) const {
  // The first row for which is_there holds; from there on it holds for all.
  const auto first = [&](const auto& is_there) {
    std::int64_t low = 0, high = q_len;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      is_there(range(middle, rules)) ? high = middle : low = middle + 1;
    }
    return low;
  };
  const std::int64_t begin = first([&](const KeyRange& keys) { return keys.end > k_from; });
  if (k_from < rules.first) return {begin, q_len};
  return {begin, std::max(begin, first([&](const KeyRange& keys) { return keys.begin >= k_to; }))};
}

// end is clamp(prefix, p + 1, p + 1 + right) cut to the keys, and max(b, min(a, prefix)) = max(b, prefix) +
// min(a, prefix) - prefix for b <= a: sums of clamped lines. No row's begin lies beyond its end before both are cut.
// The first keys add those before the begin.
double Sequence::pairs(const RangeRules& rules) const {
  const std::int64_t shift = offset + 1, cut = std::min(prefix, kv_len);
  const double ends = rules.causal
                          ? sum_clamped(q_len, shift, cut, kv_len) + sum_clamped(q_len, shift + rules.right, 0, cut) -
                                static_cast<double>(q_len) * static_cast<double>(cut)
                          : sum_clamped(q_len, shift + rules.right, 0, kv_len);
  return ends - sum_clamped(q_len, offset - rules.left, 0, kv_len) +
         sum_clamped(q_len, offset - rules.left, 0, std::min(rules.first, kv_len));
}

Sequences::Sequences(const AttentionShape& shape, const AttentionOptions& options) : shape_(shape), options_(options) {
  if (segmented()) {
    for (std::int64_t b = 0; b < shape_.batch; ++b) {
      each_run(options_.q_segments, b, shape_.q_len, [&](const Run& run) {
        ++count_;
        row_blocks_ += blocks_of(run.length);
      });
      std::int64_t keys = 0;
      each_run(options_.kv_segments, b, shape_.kv_len, [&](const Run&) { ++keys; });
      most_runs_ = std::max({most_runs_, keys, count_});
    }
  } else if (packed()) {
    count_ = static_cast<std::int64_t>(options_.cu_seqlens_q.size()) - 1;
    for (std::size_t s = 0; s + 1 < options_.cu_seqlens_q.size(); ++s)
      row_blocks_ += blocks_of(options_.cu_seqlens_q[s + 1] - options_.cu_seqlens_q[s]);
  } else {
    count_ = shape_.batch;
    row_blocks_ = shape_.batch * blocks_of(shape_.q_len);
  }
}

std::size_t Sequences::scratch_bytes() const {
  if (packed()) return round_to_line(options_.cu_seqlens_q.size() * sizeof(std::int64_t));
  if (!segmented()) return 0;
  return round_to_line(static_cast<std::size_t>(count_) * sizeof(Sequence)) +
         round_to_line(static_cast<std::size_t>(most_runs_) * sizeof(Run));
}

void Sequences::prepare(const char* function, std::byte* scratch) {
  if (segmented()) return find_segments(function, scratch);
  if (!packed()) return;
  first_blocks_ = {reinterpret_cast<std::int64_t*>(scratch), options_.cu_seqlens_q.size()};
  first_blocks_[0] = 0;
  for (std::size_t s = 0; s + 1 < options_.cu_seqlens_q.size(); ++s)
    first_blocks_[s + 1] = first_blocks_[s] + blocks_of(options_.cu_seqlens_q[s + 1] - options_.cu_seqlens_q[s]);
}

void Sequences::find_segments(const char* function, std::byte* scratch) {
  found_ = {reinterpret_cast<Sequence*>(scratch), static_cast<std::size_t>(count_)};
  std::int64_t first_block = 0;
  std::size_t next = 0;
  Run* const runs = reinterpret_cast<Run*>(scratch + round_to_line(found_.size_bytes()));
  for (std::int64_t b = 0; b < shape_.batch; ++b) {
    std::size_t size = 0;
    each_run(options_.q_segments, b, shape_.q_len, [&](const Run& run) { runs[size++] = run; });
    sort_runs(function, "q_segments", {runs, size});
    size = 0;
    each_run(options_.kv_segments, b, shape_.kv_len, [&](const Run& run) { runs[size++] = run; });
    sort_runs(function, "kv_segments", {runs, size});
    const std::int64_t valid = options_.lengths.empty() ? shape_.kv_len : options_.lengths[static_cast<std::size_t>(b)];
    each_run(options_.q_segments, b, shape_.q_len, [&](const Run& query) {
      const Run* const found =
          std::lower_bound(runs, runs + size, query.id, [](const Run& run, std::int64_t id) { return run.id < id; });
      const Run keys = found != runs + size && found->id == query.id ? *found : Run{query.id, 0, 0};
      if (keys.length > 0) check_named(function, options_, query.length, keys.length);
      Sequence sequence{
          b, query.begin, query.length, keys.begin, std::clamp<std::int64_t>(valid - keys.begin, 0, keys.length),
          0, 0,           first_block};
      align(sequence, b);
      found_[next++] = sequence;
      first_block += blocks_of(query.length);
    });
  }
}

// counted: the place of the sequence's values in the options' lists.
void Sequences::align(Sequence& sequence, std::int64_t counted) const {
  using Kind = Alignment::Kind;
  const auto place = static_cast<std::size_t>(counted);
  const Kind kind = options_.alignment.kind();
  if (kind == Kind::bottom_right) sequence.offset = sequence.kv_len - sequence.q_len;
  if (kind == Kind::offset) sequence.offset = options_.alignment.offset();
  if (kind == Kind::offsets) sequence.offset = options_.alignment.offsets()[place];
  if (!options_.prefixes.empty()) sequence.prefix = options_.prefixes[place];
}

Sequence Sequences::from_batch(std::int64_t batch) const {
  Sequence sequence{batch, 0, shape_.q_len, 0, shape_.kv_len, 0, 0, batch * blocks_of(shape_.q_len)};
  if (!options_.lengths.empty()) sequence.kv_len = options_.lengths[static_cast<std::size_t>(batch)];
  align(sequence, batch);
  return sequence;
}

Sequence Sequences::from_cu_seqlens(std::int64_t index) const {
  const auto s = static_cast<std::size_t>(index);
  const auto& [starts_q, starts_k] = std::pair{options_.cu_seqlens_q, options_.cu_seqlens_k};
  Sequence sequence{0, starts_q[s],     starts_q[s + 1] - starts_q[s], starts_k[s], starts_k[s + 1] - starts_k[s], 0,
                    0, first_blocks_[s]};
  if (!options_.lengths.empty()) sequence.kv_len = options_.lengths[s];
  align(sequence, index);
  return sequence;
}

Sequence Sequences::at(std::int64_t index) const {
  if (segmented()) return found_[static_cast<std::size_t>(index)];
  return packed() ? from_cu_seqlens(index) : from_batch(index);
}

Sequence Sequences::of_block(std::int64_t block) const {
  if (segmented()) {
    const auto after = std::upper_bound(found_.begin(), found_.end(), block,
                                        [](std::int64_t b, const Sequence& s) { return b < s.first_block; });
    return *(after - 1);
  }
  if (!packed()) return from_batch(block / blocks_of(shape_.q_len));
  const auto after = std::upper_bound(first_blocks_.begin(), first_blocks_.end(), block);
  return from_cu_seqlens(after - first_blocks_.begin() - 1);
}

Sequence Sequences::of_row(std::int64_t batch, std::int64_t row) const {
  if (segmented()) {
    const auto after =
        std::upper_bound(found_.begin(), found_.end(), std::pair{batch, row}, [](const auto& place, const Sequence& s) {
          return place < std::pair{s.batch, s.q_begin};
        });
    return *(after - 1);
  }
  if (!packed()) return from_batch(batch);
  const auto& starts = options_.cu_seqlens_q;
  return from_cu_seqlens(std::upper_bound(starts.begin(), starts.end(), row) - starts.begin() - 1);
}

double Sequences::pairs(const RangeRules& rules) const {
  using Kind = Alignment::Kind;
  const bool alike = !segmented() && !packed() && options_.lengths.empty() && options_.prefixes.empty() &&
                     options_.alignment.kind() != Kind::offsets;
  if (alike) return shape_.batch == 0 ? 0 : at(0).pairs(rules) * static_cast<double>(shape_.batch);
  double pairs = 0;
  for (std::int64_t s = 0; s < count_; ++s) pairs += at(s).pairs(rules);
  return pairs;
}

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// Who sees whom, read from the options one key at a time.
#include "oracle.hpp"

#include <algorithm>

namespace multihead::testing {

namespace {

// Position and number of the elements of one id.
struct Run {
  std::int64_t first = 0, count = 0, valid = 0;
  Run(const std::vector<std::int64_t>& ids, std::int64_t begin, std::int64_t length, std::int64_t id,
      std::int64_t end) {
    for (std::int64_t at = length; at-- > 0;)
      if (ids[static_cast<std::size_t>(begin + at)] == id) first = at, ++count, valid += at < end;
  }
};

}  // namespace

Stand::Stand(const Problem& p, std::int64_t b, std::int64_t i) {
  auto sequence = static_cast<std::size_t>(b);
  std::int64_t queries = p.shape.q_len;
  k_end = p.shape.kv_len;
  if (!p.cu_seqlens_q.empty()) {
    while (p.cu_seqlens_q[sequence + 1] <= i) ++sequence;
    q_first = p.cu_seqlens_q[sequence], queries = p.cu_seqlens_q[sequence + 1] - q_first;
    k_first = p.cu_seqlens_k[sequence], k_end = p.cu_seqlens_k[sequence + 1];
  }
  if (!p.lengths.empty()) k_end = k_first + p.lengths[sequence];
  if (!p.q_segments.empty()) {
    const std::int64_t id = p.q_segments[static_cast<std::size_t>(b * p.shape.q_len + i)];
    const Run own(p.q_segments, b * p.shape.q_len, p.shape.q_len, id, p.shape.q_len);
    const Run keys(p.kv_segments, b * p.shape.kv_len, p.shape.kv_len, id, k_end);
    q_first = own.first, queries = own.count, k_first = keys.first, k_end = keys.first + keys.valid;
  }
  using Kind = Alignment::Kind;
  const Kind kind = p.plain.alignment.kind();
  if (kind == Kind::bottom_right) offset = k_end - k_first - queries;
  if (kind == Kind::offset) offset = p.plain.alignment.offset();
  if (kind == Kind::offsets) offset = p.offsets[sequence];
  if (!p.prefixes.empty()) prefix = p.prefixes[sequence];
}

std::int64_t bucket_of(std::int64_t r, std::int64_t buckets, bool both_directions, std::int64_t max_distance) {
  std::int64_t base = 0;
  if (both_directions) {
    buckets /= 2;
    base = r > 0 ? buckets : 0;
  }
  const std::int64_t distance = both_directions ? std::abs(r) : std::max<std::int64_t>(-r, 0), exact = buckets / 2;
  if (distance < exact) return base + distance;
  const auto times = [&](std::int64_t x) {
    return std::log(static_cast<long double>(x) / static_cast<long double>(exact));
  };
  const long double place = times(distance) / times(max_distance) * static_cast<long double>(buckets - exact);
  const bool whole = std::fabs(place - std::round(place)) < 1e-12L;
  const auto step = static_cast<std::int64_t>(whole ? std::round(place) : std::floor(place));
  return base + std::min(exact + step, buckets - 1);
}

bool sees(const Problem& p, const Stand& stand, std::array<std::int64_t, 3> row, std::int64_t j) {
  const auto [b, h, i] = row;
  if (j < stand.k_first || j >= stand.k_end) return false;
  const std::int64_t key = j - stand.k_first, position = i - stand.q_first + stand.offset;
  if (p.plain.causal && key > position && key >= stand.prefix) return false;
  const Window& window = p.plain.window;
  if (window.left >= 0 && key < position - window.left && key >= window.first) return false;
  if (window.right >= 0 && key > position + window.right) return false;
  if (p.keep_mask.rank && p.keep_mask(b, h, i, j) == 0) return false;
  if (p.drop_mask.rank && p.drop_mask(b, h, i, j) != 0) return false;
  return !p.bias.rank || p.bias(b, h, i, j) != -std::numeric_limits<double>::infinity();
}

long double factor_of(const Problem& p, std::array<std::int64_t, 4> place) {
  const Dropout& dropout = p.plain.dropout;
  const auto [b, h, i, j] = place;
  return is_dropped(dropout, b * p.shape.heads + h, i, j) ? 0 : 1 / (1 - static_cast<long double>(dropout.probability));
}

}  // namespace multihead::testing

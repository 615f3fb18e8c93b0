// SPDX-License-Identifier: Apache-2.0
// A head's numbers in sixteen bits each: weights by their square roots, so that small ones keep their digits.
#include <algorithm>
#include <bit>
#include <cmath>

#include "inspect/page.hpp"

namespace multihead {

namespace {

constexpr double kSteps = 65534;  // 65535 stands for what is no number

std::uint32_t quantised(double share) {
  if (std::isnan(share)) return 65535;
  const double steps = std::clamp(share, 0.0, 1.0) * kSteps;
  const auto whole = static_cast<std::uint32_t>(steps);
  return whole + (steps - whole >= 0.5);
}
std::uint32_t root(double share) { return quantised(std::isnan(share) ? share : std::sqrt(std::max(share, 0.0))); }

// Numbers of a section, the highest bytes of all first: alike stands by alike, which compresses better.
void put(std::vector<std::byte>& bytes, std::span<const std::uint32_t> values, int width) {
  for (int byte = width - 1; byte >= 0; --byte)
    for (const std::uint32_t value : values) bytes.push_back(static_cast<std::byte>(value >> (8 * byte)));
}
void put(std::vector<std::byte>& bytes, float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  for (int byte = 0; byte < 4; ++byte) bytes.push_back(static_cast<std::byte>(bits >> (8 * byte)));
}

float largest(std::span<const float> values) {
  float most = 0;
  for (const float value : values) most = value > most ? value : most;
  return most;
}

template <class T>
std::span<const T> of_head(const std::vector<T>& values, std::int64_t heads, std::int64_t head) {
  const std::size_t size = values.size() / static_cast<std::size_t>(heads);
  return std::span<const T>(values).subspan(static_cast<std::size_t>(head) * size, size);
}

std::vector<std::byte> full_bytes(const View3<const float>& weights, std::int64_t head) {
  const std::int64_t q_len = weights.extent(1), kv_len = weights.extent(2);
  std::vector<std::uint32_t> values;
  values.reserve(static_cast<std::size_t>(q_len * kv_len));
  for (std::int64_t i = 0; i < q_len; ++i)
    for (std::int64_t j = 0; j < kv_len; ++j) values.push_back(root(static_cast<double>(weights(head, i, j))));
  std::vector<std::byte> bytes;
  bytes.reserve(values.size() * 2);
  put(bytes, values, 2);
  return bytes;
}

std::vector<std::byte> norm_bytes(const MatrixView<const float>& norms, std::int64_t head) {
  std::vector<std::byte> bytes;
  for (std::int64_t j = 0; j < norms.extent(1); ++j) put(bytes, norms(head, j));
  return bytes;
}

template <class Code>
void put_codes(std::vector<std::byte>& bytes, std::span<const float> values, const Code& code) {
  std::vector<std::uint32_t> codes;
  codes.reserve(values.size());
  for (const float value : values) codes.push_back(code(static_cast<double>(value)));
  put(bytes, codes, 2);
}

// The map, several bins to one: means over rows, sums over keys.
std::vector<std::uint32_t> joined_map(std::span<const float> map, const PagePlan& plan, std::int64_t bin) {
  const std::int64_t rows = map_cells(plan.q_len, bin), columns = map_cells(plan.kv_len, bin);
  std::vector<double> sums(static_cast<std::size_t>(plan.rows * plan.columns));
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t first = i / plan.joined * plan.joined * bin;
    const auto all = static_cast<double>(std::min(plan.joined * bin, plan.q_len - first));
    const double share = static_cast<double>(std::min(bin, plan.q_len - i * bin)) / all;
    for (std::int64_t j = 0; j < columns; ++j)
      sums[static_cast<std::size_t>(i / plan.joined * plan.columns + j / plan.joined)] +=
          share * map[static_cast<std::size_t>(i * columns + j)];
  }
  std::vector<std::uint32_t> codes;
  codes.reserve(sums.size());
  for (const double sum : sums) codes.push_back(root(sum));
  return codes;
}

std::vector<std::byte> pooled_bytes(const HeadStats& stats, const PagePlan& plan, std::int64_t head, bool norm) {
  const HeadStatsSpec& spec = stats.spec();
  const HeadStatsRows& rows = norm ? stats.norm_weighted() : stats.plain();
  const auto entropy = of_head(rows.entropy, plan.heads, head);
  const auto received = of_head(rows.received, plan.heads, head);
  const auto keys = of_head(rows.top_keys, plan.heads, head);
  const auto weights = of_head(rows.top_weights, plan.heads, head);
  const float most_entropy = largest(entropy), most_received = largest(received);
  std::vector<std::byte> bytes;
  put(bytes, most_entropy), put(bytes, most_received);
  put_codes(bytes, entropy, [&](double value) { return quantised(most_entropy == 0 ? value : value / most_entropy); });
  put_codes(bytes, received, [&](double value) { return root(most_received == 0 ? value : value / most_received); });
  put(bytes, joined_map(of_head(rows.map, plan.heads, head), plan, spec.bin), 2);
  std::vector<std::uint32_t> indices, codes;
  for (std::int64_t i = 0; i < plan.q_len; ++i)
    for (std::int64_t k = 0; k < plan.top; ++k) {
      const auto at = static_cast<std::size_t>(i * spec.top + k);
      indices.push_back(static_cast<std::uint32_t>(keys[at]));  // -1: all bits set
      codes.push_back(root(weights[at]));
    }
  put(bytes, indices, static_cast<int>(plan.index_bytes));
  put(bytes, codes, 2);
  return bytes;
}

}  // namespace

std::vector<std::byte> head_bytes(const Page& page, const PagePlan& plan, std::int64_t layer, std::int64_t head,
                                  bool norm) {
  const auto at = static_cast<std::size_t>(layer);
  if (!plan.full) return pooled_bytes(*page.layers[at], plan, head, norm);
  return norm ? norm_bytes(page.norms[at], head) : full_bytes(page.weights[at], head);
}

}  // namespace multihead

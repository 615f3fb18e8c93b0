// SPDX-License-Identifier: Apache-2.0
// statistics_of_weights(): the plain definitions, in double, row by row. What the passes of the kernels are held
// against.
#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "core/float_mode.hpp"
#include "kernels/statistics.hpp"
#include "kernels/table.hpp"

namespace multihead {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// One row's weights as a distribution: p_j, or p_j n_j / sum p n.
template <class T>
struct Row {
  const StatisticsRequest<T>& request;
  const RowStatistics<T>& to;
  std::int64_t b, h, i, position;
  std::span<const double> p, logs;
  double seen;  // keys of a weight above 0, or NaN

  double log_of(std::int64_t key) const { return logs[static_cast<std::size_t>(key)]; }
  std::int64_t keys() const { return static_cast<std::int64_t>(p.size()); }
  double at(std::int64_t key) const { return key >= 0 && key < keys() ? p[static_cast<std::size_t>(key)] : 0; }
  static void put(const View3<T>& view, std::int64_t b, std::int64_t h, std::int64_t i, double value) {
    if (view.data()) view(b, h, i) = static_cast<T>(value);
  }
  template <class Weigh>
  double sum(const Weigh& weigh) const {
    double total = 0;
    for (std::int64_t j = 0; j < keys(); ++j) total += weigh(j, at(j));
    return total;
  }

  void moments() const {
    const double all = sum([](std::int64_t, double x) { return x; });
    const double far = sum([&](std::int64_t j, double x) { return x * static_cast<double>(std::abs(position - j)); });
    const double entropy = sum([&](std::int64_t j, double x) { return x == 0 ? 0 : -x * log_of(j); });
    put(to.visible, b, h, i, seen);
    put(to.entropy, b, h, i, all == 0 ? kNaN : entropy);
    put(to.sum_squares, b, h, i, sum([](std::int64_t, double x) { return x * x; }));
    put(to.distance, b, h, i, all == 0 ? kNaN : far / all);
  }

  void masses() const {
    for (std::int64_t c = 0; to.offset_mass.data() && c < to.offset_mass.extent(3); ++c)
      to.offset_mass(b, h, i, c) = static_cast<T>(at(position + request.offsets[static_cast<std::size_t>(c)]));
    for (std::int64_t c = 0; to.key_mass.data() && c < to.key_mass.extent(3); ++c)
      to.key_mass(b, h, i, c) = static_cast<T>(at(request.keys[static_cast<std::size_t>(c)]));
    for (std::int64_t c = 0; to.class_mass.data() && c < to.class_mass.extent(3); ++c)
      to.class_mass(b, h, i, c) =
          static_cast<T>(sum([&](std::int64_t j, double x) { return request.key_classes(b, j) >> c & 1 ? x : 0.0; }));
    if (!to.duplicate_mass.data() && !to.induction_mass.data()) return;
    const std::int64_t own = keys() > 0 ? request.q_tokens(b, i) : 0;  // tokens of no key may be null
    const auto is_own = [&](std::int64_t key) { return key >= 0 && request.kv_tokens(b, key) == own; };
    put(to.duplicate_mass, b, h, i,
        sum([&](std::int64_t j, double x) { return j != position && is_own(j) ? x : 0.0; }));
    put(to.induction_mass, b, h, i,
        sum([&](std::int64_t j, double x) { return j - 1 != position && is_own(j - 1) ? x : 0.0; }));
  }

  void top() const {
    const std::int64_t count = to.top_keys.data() ? to.top_keys.extent(3) : to.top_weights.extent(3);
    if (!to.top_keys.data() && !to.top_weights.data()) return;
    std::vector<std::int64_t> order;
    for (std::int64_t j = 0; j < keys(); ++j)
      if (at(j) > 0) order.push_back(j);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t c) { return at(a) > at(c); });
    for (std::int64_t place = 0; place < count; ++place) {
      const bool filled = place < static_cast<std::int64_t>(order.size());
      const std::int64_t key = filled ? order[static_cast<std::size_t>(place)] : -1;
      if (to.top_keys.data()) to.top_keys(b, h, i, place) = key;
      if (to.top_weights.data()) to.top_weights(b, h, i, place) = static_cast<T>(at(key));
    }
  }
};

// Column sums of one head in double, written once all rows are in.
template <class T>
struct Columns {
  const RowStatistics<T>& to;
  std::int64_t bin, q_len, kv_len;
  std::vector<double> received, map;

  Columns(const RowStatistics<T>& statistics, std::int64_t bin_size, std::int64_t rows, std::int64_t keys)
      : to(statistics), bin(std::max<std::int64_t>(bin_size, 1)), q_len(rows), kv_len(keys) {
    if (to.received.data()) received.assign(static_cast<std::size_t>(kv_len), 0);
    if (to.map.data()) map.assign(static_cast<std::size_t>(cells(q_len) * cells(kv_len)), 0);
  }
  std::int64_t cells(std::int64_t length) const { return map_cells(length, bin); }

  void add(std::int64_t i, std::span<const double> p) {
    for (std::size_t j = 0; j < received.size(); ++j) received[j] += p[j];
    for (std::size_t j = 0; !map.empty() && j < p.size(); ++j)
      map[static_cast<std::size_t>(i / bin * cells(kv_len) + static_cast<std::int64_t>(j) / bin)] += p[j];
  }
  void write(std::int64_t b, std::int64_t h) const {
    for (std::int64_t j = 0; j < static_cast<std::int64_t>(received.size()); ++j)
      to.received(b, h, j) = static_cast<T>(received[static_cast<std::size_t>(j)]);
    for (std::int64_t r = 0; !map.empty() && r < cells(q_len); ++r)
      for (std::int64_t c = 0; c < cells(kv_len); ++c)
        to.map(b, h, r, c) = static_cast<T>(map[static_cast<std::size_t>(r * cells(kv_len) + c)] /
                                            static_cast<double>(std::min(bin, q_len - r * bin)));
  }
};

template <class T>
void distribution(const View4<const T>& weights, const StatisticsRequest<T>& request, bool weighted,
                  std::int64_t query_offset) {
  const RowStatistics<T>& to = weighted ? request.norm_weighted : request.plain;
  if (!to.any()) return;
  const std::int64_t q_len = weights.extent(2), kv_len = weights.extent(3);
  std::vector<double> p(static_cast<std::size_t>(kv_len)), logs(p.size());
  const auto log = choose_kernels({}).f64.map;
  for (std::int64_t b = 0; b < weights.extent(0); ++b)
    for (std::int64_t h = 0; h < weights.extent(1); ++h) {
      Columns<T> columns(to, request.bin, q_len, kv_len);
      for (std::int64_t i = 0; i < q_len; ++i) {
        double all = 0, seen = 0;
        for (std::int64_t j = 0; j < kv_len; ++j) {
          double x = static_cast<double>(weights(b, h, i, j));
          seen += x != 0 ? 1 : 0;
          if (weighted) x *= static_cast<double>(request.norms(b, h, j));
          p[static_cast<std::size_t>(j)] = x, all += x;
        }
        for (double& x : p)
          if (weighted && all != 0) x /= all;
        log(MathFunction::log, p.data(), logs.data(), kv_len);
        const Row<T> row{request, to, b, h, i, i + query_offset, p, logs, seen};
        row.moments(), row.masses(), row.top();
        columns.add(i, p);
      }
      columns.write(b, h);
    }
}

template <class T>
void check_weights_of(const char* name, const View4<const T>& weights) {
  for (std::int64_t b = 0; b < weights.extent(0); ++b)
    for (std::int64_t h = 0; h < weights.extent(1); ++h)
      for (std::int64_t i = 0; i < weights.extent(2); ++i)
        for (std::int64_t j = 0; j < weights.extent(3); ++j)
          if (weights(b, h, i, j) < 0)
            fail(ErrorCode::bad_option, std::string(name) + ": a weight is " + std::to_string(weights(b, h, i, j)) +
                                            "; it must be at least 0");
}

template <class T>
void run(View4<const T> weights, const StatisticsRequest<T>& request, std::int64_t query_offset) {
  constexpr const char* kName = "statistics_of_weights";
  const Operand operand_of_weights = operand("weights", weights);
  check_view(kName, operand_of_weights);
  const AttentionShape shape{.batch = weights.extent(0),
                             .heads = weights.extent(1),
                             .kv_heads = weights.extent(1),
                             .q_len = weights.extent(2),
                             .kv_len = weights.extent(3)};
  check_statistics(kName, request, shape, {operand_of_weights}, {});
  check_between(kName, "query_offset", query_offset, -kMostStatisticsReach, kMostStatisticsReach);
  const FloatMode mode;
  if (request.any()) check_weights_of(kName, weights);
  try {
    distribution(weights, request, false, query_offset);
    distribution(weights, request, true, query_offset);
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, std::string(kName) + ": the sums of one head cannot be allocated");
  }
}

}  // namespace

void statistics_of_weights(View4<const float> weights, const StatisticsRequest<float>& request,
                           std::int64_t query_offset) {
  run(weights, request, query_offset);
}
void statistics_of_weights(View4<const double> weights, const StatisticsRequest<double>& request,
                           std::int64_t query_offset) {
  run(weights, request, query_offset);
}

}  // namespace multihead

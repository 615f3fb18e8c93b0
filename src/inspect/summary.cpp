// SPDX-License-Identifier: Apache-2.0
// summarise(): one head in numbers, means over its rows in double.
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <vector>

#include "core/float_mode.hpp"
#include "core/validate.hpp"
#include "kernels/table.hpp"
#include "multihead/inspect.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "summarise";
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The rows of one head that give weight, as places in a list of (batch, heads, q_len), ascending, with their positions.
// Those that see no key, those whose weights are all 0 and those past a sequence's length are left out; of a row of NaN
// the sum of squares is one.
struct WeighingRows {
  std::vector<std::size_t> places;
  std::vector<std::int64_t> positions;

  WeighingRows(const HeadStatsSpec& spec, std::int64_t head, const HeadStatsRows& from) {
    for (std::int64_t b = 0; b < spec.batch; ++b) {
      const std::int64_t rows = spec.q_lengths.empty() ? spec.q_len : spec.q_lengths[static_cast<std::size_t>(b)];
      for (std::int64_t i = 0; i < rows; ++i) {
        const auto place = static_cast<std::size_t>((b * spec.heads + head) * spec.q_len + i);
        if (from.visible[place] == 0) continue;
        if (from.top_weights[place * static_cast<std::size_t>(spec.top)] == 0 && from.sum_squares[place] == 0) continue;
        places.push_back(place);
        positions.push_back(i + spec.query_offset);
      }
    }
  }

  // Of element c of each row's width elements.
  double mean(const std::vector<float>& list, std::size_t width = 1, std::size_t c = 0) const {
    if (list.empty() || places.empty()) return kNaN;
    double sum = 0;
    for (const std::size_t place : places) sum += static_cast<double>(list[place * width + c]);
    return sum / static_cast<double>(places.size());
  }
  std::vector<double> means(const std::vector<float>& list, std::size_t width) const {
    std::vector<double> found(width);
    for (std::size_t c = 0; c < width; ++c) found[c] = mean(list, width, c);
    return found;
  }
};

double entropy_share(const WeighingRows& rows, const HeadStatsRows& from) {
  std::vector<double> keys, logs, entropies;
  for (const std::size_t place : rows.places)
    if (from.visible[place] > 1) {
      keys.push_back(static_cast<double>(from.visible[place]));
      entropies.push_back(static_cast<double>(from.entropy[place]));
    }
  if (keys.empty()) return kNaN;
  logs.resize(keys.size());
  choose_kernels({}).f64.map(MathFunction::log, keys.data(), logs.data(), static_cast<std::int64_t>(keys.size()));
  double sum = 0;
  for (std::size_t row = 0; row < keys.size(); ++row) sum += entropies[row] / logs[row];
  return sum / static_cast<double>(keys.size());
}

// Of offsets that are equally frequent the nearest, the one before where both are as near.
void find_top_offset(const WeighingRows& rows, const std::vector<std::int64_t>& top_keys, std::size_t top,
                     HeadSummary& summary) {
  std::vector<std::int64_t> offsets;
  for (std::size_t row = 0; row < rows.places.size(); ++row) {
    const std::int64_t key = top_keys[rows.places[row] * top];
    if (key >= 0) offsets.push_back(key - rows.positions[row]);
  }
  std::sort(offsets.begin(), offsets.end());
  std::ptrdiff_t most = 0;
  for (auto first = offsets.begin(); first != offsets.end();) {
    const auto last = std::upper_bound(first, offsets.end(), *first);
    const bool nearer = std::abs(*first) < std::abs(summary.top_offset);
    if (last - first > most || (last - first == most && nearer)) most = last - first, summary.top_offset = *first;
    first = last;
  }
  summary.top_offset_share =
      rows.places.empty() ? kNaN : static_cast<double>(most) / static_cast<double>(rows.places.size());
}

}  // namespace

HeadSummary summarise(const HeadStats& stats, std::int64_t head, bool norm_weighted) {
  const HeadStatsSpec& spec = stats.spec();
  if (head < 0 || head >= spec.heads)
    fail(ErrorCode::bad_option, std::string(kName) + ": head is " + std::to_string(head) + "; there are " +
                                    std::to_string(spec.heads) + ", counted from 0");
  if (norm_weighted && !spec.norm_weighted)
    fail(ErrorCode::bad_option,
         std::string(kName) + ": norm_weighted is true; the statistics were gathered without norm_weighted");
  const FloatMode mode;
  const HeadStatsRows& from = norm_weighted ? stats.norm_weighted() : stats.plain();
  const WeighingRows rows(spec, head, from);
  const auto top = static_cast<std::size_t>(spec.top);
  HeadSummary summary;
  summary.rows = static_cast<std::int64_t>(rows.places.size());
  summary.entropy = rows.mean(from.entropy);
  summary.entropy_share = entropy_share(rows, from);
  summary.largest = rows.mean(from.top_weights, top);
  summary.sum_squares = rows.mean(from.sum_squares);
  summary.distance = rows.mean(from.distance);
  summary.offset_mass = rows.means(from.offset_mass, spec.offsets.size());
  summary.key_mass = rows.means(from.key_mass, spec.keys.size());
  summary.class_mass = rows.means(from.class_mass, spec.classes.size());
  summary.duplicate_mass = rows.mean(from.duplicate_mass);
  summary.induction_mass = rows.mean(from.induction_mass);
  find_top_offset(rows, from.top_keys, top, summary);
  return summary;
}

}  // namespace multihead

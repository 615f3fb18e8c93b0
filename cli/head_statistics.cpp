// SPDX-License-Identifier: Apache-2.0
// The statistics of heads by their names in files, and their numbers as text.
#include <array>
#include <charconv>
#include <cmath>

#include "head_files.hpp"

namespace multihead::cli {

namespace {

constexpr std::array kRows{RowStatistic{"visible", &HeadStatsRows::visible, false},
                           RowStatistic{"entropy", &HeadStatsRows::entropy, false},
                           RowStatistic{"sum_squares", &HeadStatsRows::sum_squares, false},
                           RowStatistic{"distance", &HeadStatsRows::distance, false},
                           RowStatistic{"offset_mass", &HeadStatsRows::offset_mass, true},
                           RowStatistic{"key_mass", &HeadStatsRows::key_mass, true},
                           RowStatistic{"class_mass", &HeadStatsRows::class_mass, true},
                           RowStatistic{"duplicate_mass", &HeadStatsRows::duplicate_mass, false},
                           RowStatistic{"induction_mass", &HeadStatsRows::induction_mass, false},
                           RowStatistic{"top_weights", &HeadStatsRows::top_weights, true}};
constexpr std::array kMean{MeanStatistic{"entropy", &HeadSummary::entropy},
                           MeanStatistic{"entropy_share", &HeadSummary::entropy_share},
                           MeanStatistic{"largest", &HeadSummary::largest},
                           MeanStatistic{"sum_squares", &HeadSummary::sum_squares},
                           MeanStatistic{"distance", &HeadSummary::distance},
                           MeanStatistic{"duplicate_mass", &HeadSummary::duplicate_mass},
                           MeanStatistic{"induction_mass", &HeadSummary::induction_mass},
                           MeanStatistic{"top_offset_share", &HeadSummary::top_offset_share}};
constexpr std::array kMeans{MeansStatistic{"offset_mass", &HeadSummary::offset_mass},
                            MeansStatistic{"key_mass", &HeadSummary::key_mass},
                            MeansStatistic{"class_mass", &HeadSummary::class_mass}};

template <class T>
std::string digits_of(T value, const char* without) {
  if (!std::isfinite(value)) return without;
  std::array<char, 40> digits{};
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr};
}

}  // namespace

std::span<const RowStatistic> row_statistics() { return kRows; }
std::span<const MeanStatistic> mean_statistics() { return kMean; }
std::span<const MeansStatistic> means_statistics() { return kMeans; }

std::span<const float> numbers_of(const HeadStats& stats, const std::vector<float>& values, std::int64_t head,
                                  std::int64_t row) {
  const HeadStatsSpec& spec = stats.spec();
  const auto rows = static_cast<std::size_t>(spec.heads * spec.q_len), width = rows == 0 ? 0 : values.size() / rows;
  return std::span(values).subspan(static_cast<std::size_t>(head * spec.q_len + row) * width, width);
}

std::string number_text(float value, const char* without) { return digits_of(value, without); }
std::string number_text(double value, const char* without) { return digits_of(value, without); }

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// The statistics of a run's heads as files: a page, JSON, CSV and NPZ. docs/formats.md has what stands in them.
#pragma once

#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "head_run.hpp"

namespace multihead::cli {

// What is asked for on the command line: each a path, empty where it is not; - is standard output.
class HeadFiles {
 public:
  // Throws bad_option: two of them are one file by whatever names, or an archive is to go to standard output.
  explicit HeadFiles(const HeadsArguments& arguments);

  bool any() const;
  // What statistics must also hold for them.
  void ask(HeadStatsSpec& spec) const;
  // Writes them, each replaced only when complete, and says so where none goes to standard output.
  void write(const HeadRun& run, const std::vector<HeadStats>& layers) const;

 private:
  const HeadsArguments& arguments_;
};

// Of HeadStatsRows, in the order of files. Of several numbers a row: one for each offset, key, class or place.
struct RowStatistic {
  const char* name;
  std::vector<float> HeadStatsRows::*values;
  bool several;
};
std::span<const RowStatistic> row_statistics();
// The numbers of a head's row; none where the statistic was not gathered.
std::span<const float> numbers_of(const HeadStats& stats, const std::vector<float>& values, std::int64_t head,
                                  std::int64_t row);

// Of HeadSummary.
struct MeanStatistic {
  const char* name;
  double HeadSummary::*value;
};
std::span<const MeanStatistic> mean_statistics();
struct MeansStatistic {
  const char* name;
  std::vector<double> HeadSummary::*values;
};
std::span<const MeansStatistic> means_statistics();

// The shortest digits that read back as the same number; what is no finite number as without says.
std::string number_text(float value, const char* without);
std::string number_text(double value, const char* without);

void write_json(std::ostream& out, const HeadRun& run, const std::vector<HeadStats>& layers);
void write_csv(std::ostream& out, const HeadTokens& tokens, const std::vector<HeadStats>& layers);
void write_npz(const std::string& path, const HeadTokens& tokens, const std::vector<HeadStats>& layers);
void write_html(std::ostream& out, const HeadRun& run, const std::vector<HeadStats>& layers);

}  // namespace multihead::cli

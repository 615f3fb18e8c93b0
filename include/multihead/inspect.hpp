// SPDX-License-Identifier: Apache-2.0
// What each head looks at: statistics with memory of their own, one number a head, labels, pages, terminal pictures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "multihead/statistics.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

// What is wanted of a call's heads, in float.
struct HeadStatsSpec {
  std::int64_t batch = 1, heads = 0, q_len = 0, kv_len = 0;
  std::int64_t query_offset = 0;                            // query i is at position i + query_offset
  std::vector<std::int64_t> offsets = {-1, 0, 1};           // of offset_mass
  std::vector<std::int64_t> keys = {0};                     // of key_mass
  std::vector<std::string> classes = {};                    // their names; class c is bit c of key_classes
  std::vector<std::uint32_t> key_classes = {};              // (batch, kv_len); empty where classes is
  std::vector<std::int64_t> q_tokens = {}, kv_tokens = {};  // (batch, q_len), (batch, kv_len); empty: no patterns
  std::int64_t top = 1;                                     // keys of the largest weights, 1 to 64
  bool received = false;
  std::int64_t bin = 0;        // of map; 0: no map
  bool norm_weighted = false;  // also of p_ij n_j
  // (batch), up to q_len each: rows from there on are padding, which summarise() leaves out. received and map are sums
  // over all rows. Empty: every row counts.
  std::vector<std::int64_t> q_lengths = {};
};

// One distribution's statistics in memory of its own, as RowStatistics orders them; what was not asked for is empty.
struct HeadStatsRows {
  std::vector<float> visible, entropy, sum_squares, distance, offset_mass, key_mass, class_mass, duplicate_mass,
      induction_mass, top_weights, received, map;
  std::vector<std::int64_t> top_keys;
};

// The statistics of one attention call: of one layer of a model.
class HeadStats {
 public:
  // Memory for what the spec wants, zeros. Throws bad_option (a number out of the range that StatisticsRequest has for
  // it), shape_mismatch (a list of another length), out_of_memory.
  explicit HeadStats(HeadStatsSpec spec);

  const HeadStatsSpec& spec() const noexcept { return spec_; }
  // Views into this object, for attention(), a layer or an encoder; valid while it is neither moved nor destroyed.
  StatisticsRequest<float> request();
  const HeadStatsRows& plain() const noexcept { return plain_; }
  const HeadStatsRows& norm_weighted() const noexcept { return norm_weighted_; }
  // One of them as views.
  RowStatistics<const float> rows(bool norm_weighted = false) const;

 private:
  HeadStatsSpec spec_;
  HeadStatsRows plain_, norm_weighted_;
};

// One head in numbers: means over the rows of all batch entries that give weight to a key, added in double in ascending
// order. Left out are rows that see no key, rows whose weights are all 0 (a sink took everything; of norm_weighted all
// keys seen have n_j = 0), and padding (HeadStatsSpec::q_lengths). A row of NaN counts, and shows. NaN where a
// statistic was not gathered.
struct HeadSummary {
  std::int64_t rows = 0;     // that count
  double entropy = 0;        // nats
  double entropy_share = 0;  // of H_i / ln n_i over the rows that see n_i > 1 keys; NaN without one
  double largest = 0;        // of the largest weight: Voita et al. 2019 call it confidence
  double sum_squares = 0;
  double distance = 0;
  std::vector<double> offset_mass, key_mass, class_mass;
  double duplicate_mass = 0, induction_mass = 0;
  std::int64_t top_offset =
      0;  // the key - position at which most rows have their largest weight; of equals the nearest
  double top_offset_share = 0;  // the share of rows that have it there
};

// head of 0 .. heads - 1. Throws bad_option.
HeadSummary summarise(const HeadStats& stats, std::int64_t head, bool norm_weighted = false);

// A name for what a head does, with the number that earned it.
struct HeadLabel {
  std::string name;     // "previous", "next", "self", "sink", "separator", "broad", "local", "duplicate", "induction",
                        // "positional", "mixed"
  std::string measure;  // "mean weight on the key before"
  double value, threshold;
  std::string source;  // who published the threshold
};

// All that apply, in the order above; "mixed", alone, where none does. docs/insight.md has the table of thresholds.
std::vector<HeadLabel> head_labels(const HeadStats& stats, const HeadSummary& summary);

// ---- Pictures in a terminal

enum class ColorDepth { none, colors_256, colors_24_bit };

// text on the colour of a place between dark violet (0) and yellow (1); as it is where depth is none.
std::string colored(const std::string& text, double place, ColorDepth depth);

// weights (rows, keys) in [0, 1] as lines of text, none wider than columns: two rows a line as upper half blocks in
// colour, lighter with the square root of the weight; without colour one row a line, in hundredths, or by the square
// root as a sign of " .:-=+*#%@" where those do not fit. Where keys are more than fit, each cell shows the largest of a
// few, which the first line says. Rows are named by number and name, keys by number and, where each has a cell, by
// name, written downwards; names are cut and left out where there is no room. Names may be any text: what could harm a
// terminal is shown as '?'.
struct PictureOptions {
  std::size_t columns = 80;
  ColorDepth depth = ColorDepth::none;
  std::span<const std::string> row_names = {}, key_names = {};  // empty: numbers alone
};
// Throws shape_mismatch (names of another number), bad_option (columns 0).
std::vector<std::string> picture(MatrixView<const float> weights, const PictureOptions& options);

// ---- The page

// One sequence through one model, for a page. Tokens are any text, hostile text too; UTF-8, what is not is shown as
// replacement characters.
struct Page {
  std::string title;
  std::span<const std::string> q_tokens, kv_tokens;  // kv_tokens empty: the same
  std::span<const HeadStats* const> layers;          // batch 1; all of one shape
  // One a layer, (heads, q_len, kv_len); empty: the page shows maps and top keys (spec.bin and spec.top of each layer).
  // 512 tokens at most, on either side.
  std::span<const View3<const float>> weights = {};
  // One a layer or empty, (heads, kv_len), each at least 0: what weights are multiplied by, shown beside as shares of
  // their rows. Only with weights; without them the page shows what layers have of it.
  std::span<const MatrixView<const float>> norms = {};
  // One a token, not 0 for the model's own ([CLS] and its kin); empty: the page guesses by the token's text.
  // kv_special only with kv_tokens.
  std::span<const std::uint8_t> q_special = {}, kv_special = {};
};

// Bytes to bytes as zlib has them (RFC 1950); none: the page holds its data as they are.
using Compress = std::function<std::string(std::span<const std::byte>)>;

// A page of HTML that needs nothing but itself: no network, no fonts. Writes to out; throws shape_mismatch, bad_option,
// and file_missing where out fails.
void write_page(std::ostream& out, const Page& page, const Compress& compress = {});

}  // namespace multihead

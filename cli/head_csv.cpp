// SPDX-License-Identifier: Apache-2.0
// The statistics of a run's heads as CSV (RFC 4180): a line for each row, and for each head one of its means.
#include <algorithm>

#include "head_files.hpp"

namespace multihead::cli {

namespace {

// What tells a statistic's numbers apart: "_-1" for an offset, "_special" for a class.
std::vector<std::string> suffixes_of(const HeadStatsSpec& spec, std::string_view name) {
  std::vector<std::string> found;
  const auto add = [&](const auto& list) {
    for (const auto element : list) found.push_back("_" + std::to_string(element));
  };
  if (name == "offset_mass")
    add(spec.offsets);
  else if (name == "key_mass")
    add(spec.keys);
  else if (name == "class_mass")
    for (const std::string& one : spec.classes) found.push_back("_" + one);
  else
    for (std::int64_t place = 0; place < spec.top; ++place) found.push_back("_" + std::to_string(place));
  return found;
}

std::string field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string(2, c) : std::string(1, c);
  return out + '"';
}

void add_names(std::string& line, const HeadStats& stats, const HeadStatsRows& from, const std::string& prefix) {
  const HeadStatsSpec& spec = stats.spec();
  for (const auto& [name, member, several] : row_statistics()) {
    if ((from.*member).empty()) continue;
    const std::vector<std::string> suffixes = several ? suffixes_of(spec, name) : std::vector<std::string>{""};
    for (const std::string& suffix : suffixes) line += ',' + prefix + name + suffix;
  }
  for (const std::string& suffix : suffixes_of(spec, "top_keys")) line += ',' + prefix + "top_keys" + suffix;
  if (!from.received.empty()) line += ',' + prefix + "received";
}

void add_row(std::string& line, const HeadStats& stats, const HeadStatsRows& from, std::int64_t head,
             std::int64_t row) {
  const HeadStatsSpec& spec = stats.spec();
  for (const auto& [name, member, several] : row_statistics())
    for (const float value : numbers_of(stats, from.*member, head, row)) line += ',' + number_text(value, "");
  for (std::int64_t place = 0; place < spec.top; ++place)
    line += ',' + std::to_string(from.top_keys[static_cast<std::size_t>((head * spec.q_len + row) * spec.top + place)]);
  if (!from.received.empty())
    line += ',' + number_text(from.received[static_cast<std::size_t>(head * spec.kv_len + row)], "");
}

// The means stand in the columns of what they are means of; a column without one is empty.
void add_means(std::string& line, const HeadStats& stats, const HeadStatsRows& from, const HeadSummary& summary) {
  const auto mean_of = [&](std::string_view name) {
    for (const auto& [known, value] : mean_statistics())
      if (known == name) return number_text(summary.*value, "");
    return std::string();
  };
  for (const auto& [name, member, several] : row_statistics()) {
    if ((from.*member).empty()) continue;
    if (std::string_view(name) == "top_weights") {
      line += ',' + number_text(summary.largest, "") + std::string(static_cast<std::size_t>(stats.spec().top - 1), ',');
      continue;
    }
    if (!several) line += ',' + mean_of(name);
    for (const auto& [known, values] : means_statistics())
      if (std::string_view(known) == name)
        for (const double value : summary.*values) line += ',' + number_text(value, "");
  }
  line += std::string(static_cast<std::size_t>(stats.spec().top) + (from.received.empty() ? 0 : 1), ',');
}

std::string names_of(const std::vector<HeadLabel>& labels) {
  std::string names;
  for (const HeadLabel& label : labels) names += (names.empty() ? "" : " ") + label.name;
  return names;
}

}  // namespace

void write_csv(std::ostream& out, const HeadTokens& tokens, const std::vector<HeadStats>& layers) {
  const bool both = layers.front().spec().norm_weighted;
  std::string line = "layer,head,row,token,labels";
  add_names(line, layers.front(), layers.front().plain(), "");
  if (both) add_names(line, layers.front(), layers.front().norm_weighted(), "norm_weighted_");
  out << line << "\r\n";
  for (std::size_t layer = 0; layer < layers.size(); ++layer)
    for (std::int64_t head = 0; head < layers[layer].spec().heads; ++head) {
      const HeadStats& stats = layers[layer];
      const std::string place = std::to_string(layer) + ',' + std::to_string(head) + ',';
      for (std::int64_t row = 0; row < tokens.size(); ++row) {
        line = place + std::to_string(row) + ',' + field(tokens.texts[static_cast<std::size_t>(row)]) + ',';
        add_row(line, stats, stats.plain(), head, row);
        if (both) add_row(line, stats, stats.norm_weighted(), head, row);
        out << line << "\r\n";
      }
      const HeadSummary summary = summarise(stats, head);
      line = place + ",," + names_of(head_labels(stats, summary));
      add_means(line, stats, stats.plain(), summary);
      if (both) add_means(line, stats, stats.norm_weighted(), summarise(stats, head, true));
      out << line << "\r\n";
    }
}

}  // namespace multihead::cli

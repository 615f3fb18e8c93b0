// SPDX-License-Identifier: Apache-2.0
// The statistics of a run's heads as JSON.
#include "head_files.hpp"
#include "json_text.hpp"

namespace multihead::cli {

namespace {

// [a,b,c], each element as text_of writes it.
template <class List, class TextOf>
std::string list(const List& elements, const TextOf& text_of) {
  std::string text = "[";
  for (const auto& element : elements) text += (text.size() > 1 ? "," : "") + text_of(element);
  return text + "]";
}
template <class List>
std::string numbers(const List& elements) {
  return list(elements, [](auto value) {
    if constexpr (std::is_integral_v<decltype(value)>)
      return std::to_string(value);
    else
      return number_text(value, "null");
  });
}

std::string summary_text(const HeadSummary& summary) {
  std::string text = "{\"rows\":" + std::to_string(summary.rows);
  for (const auto& [name, value] : mean_statistics())
    text += ",\"" + std::string(name) + "\":" + number_text(summary.*value, "null");
  for (const auto& [name, values] : means_statistics())
    text += ",\"" + std::string(name) + "\":" + numbers(summary.*values);
  return text + ",\"top_offset\":" + std::to_string(summary.top_offset) + "}";
}

std::string label_object(const HeadLabel& label) {
  return "{\"name\":" + json_text(label.name) + ",\"measure\":" + json_text(label.measure) +
         ",\"value\":" + number_text(label.value, "null") + ",\"threshold\":" + number_text(label.threshold, "null") +
         ",\"source\":" + json_text(label.source) + "}";
}

// A list for each statistic: of numbers, or of lists where a row has several.
std::string rows_text(const HeadStats& stats, const HeadStatsRows& from, std::int64_t head) {
  const HeadStatsSpec& spec = stats.spec();
  std::string text = "{";
  const auto add = [&](const char* name, const std::string& values) {
    text += (text.size() > 1 ? ",\"" : "\"") + std::string(name) + "\":" + values;
  };
  for (const auto& [name, member, several] : row_statistics()) {
    const std::vector<float>& values = from.*member;
    if (values.empty()) continue;
    std::string rows = "[";
    for (std::int64_t i = 0; i < spec.q_len; ++i) {
      const std::span<const float> row = numbers_of(stats, values, head, i);
      rows += (i > 0 ? "," : "") + (several ? numbers(row) : number_text(row[0], "null"));
    }
    add(name, rows + "]");
  }
  std::string keys = "[";
  for (std::int64_t i = 0; i < spec.q_len; ++i)
    keys += (i > 0 ? "," : "") + numbers(std::span(from.top_keys)
                                             .subspan(static_cast<std::size_t>((head * spec.q_len + i) * spec.top),
                                                      static_cast<std::size_t>(spec.top)));
  add("top_keys", keys + "]");
  if (!from.received.empty())
    add("received",
        numbers(std::span(from.received)
                    .subspan(static_cast<std::size_t>(head * spec.kv_len), static_cast<std::size_t>(spec.kv_len))));
  return text + "}";
}

}  // namespace

void write_json(std::ostream& out, const HeadRun& run, const std::vector<HeadStats>& layers) {
  const HeadStatsSpec& spec = layers.front().spec();
  const HeadTokens& tokens = run.tokens();
  out << "{\"multihead\":" << json_text(version()) << ",\n\"tokens\":" << list(tokens.texts, json_text)
      << ",\n\"ids\":" << numbers(tokens.ids)
      << ",\n\"special\":" << list(tokens.special, [](char c) { return std::string(c ? "true" : "false"); })
      << ",\n\"offsets\":" << numbers(spec.offsets) << ",\"keys\":" << numbers(spec.keys)
      << ",\"classes\":" << list(spec.classes, json_text)
      << (run.gates().empty() ? "" : ",\n\"gated\":" + json_text(run.gates())) << ",\n\"heads\":[";
  for (std::size_t layer = 0; layer < layers.size(); ++layer)
    for (std::int64_t head = 0; head < spec.heads; ++head) {
      const HeadStats& stats = layers[layer];
      const HeadSummary summary = summarise(stats, head);
      out << (layer + static_cast<std::size_t>(head) > 0 ? ",\n" : "\n") << "{\"layer\":" << layer
          << ",\"head\":" << head << ",\"summary\":" << summary_text(summary)
          << ",\"labels\":" << list(head_labels(stats, summary), label_object)
          << ",\n\"rows\":" << rows_text(stats, stats.plain(), head);
      if (spec.norm_weighted)
        out << ",\n\"norm_weighted\":{\"summary\":" << summary_text(summarise(stats, head, true))
            << ",\"rows\":" << rows_text(stats, stats.norm_weighted(), head) << "}";
      out << "}";
    }
  out << "]}\n";
}

}  // namespace multihead::cli

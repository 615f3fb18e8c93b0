// SPDX-License-Identifier: Apache-2.0
// What a page says of all heads: tokens, statistics with their definitions, labels.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "inspect/page.hpp"

namespace multihead {

namespace {

// The shortest text that reads back as the same float; null for what is no number.
std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, static_cast<float>(value));
  return {text, end};
}

// Joined by commas in brackets.
template <class List, class Text>
std::string array(const List& list, const Text& text) {
  std::string out = "[";
  for (const auto& item : list) (out += out.size() > 1 ? "," : "") += text(item);
  return out + "]";
}

struct Statistic {
  std::string id, name, unit, help;
  std::vector<double> plain, norm;
};

// One head's numbers beside what HeadSummary has of it.
struct Head {
  HeadSummary summary;
  double received;  // by the key that receives most, as a mean over all rows
};

Head head_of(const HeadStats& stats, std::int64_t head, bool norm) {
  const std::vector<float>& received = (norm ? stats.norm_weighted() : stats.plain()).received;
  double most = std::numeric_limits<double>::quiet_NaN();
  if (!received.empty()) {
    const auto first = received.begin() + head * stats.spec().kv_len;
    most = *std::max_element(first, first + stats.spec().kv_len) / static_cast<double>(stats.spec().q_len);
  }
  return {summarise(stats, head, norm), most};
}

std::string offset_name(std::int64_t offset) {
  if (offset == 0) return "weight on itself";
  const std::string side = offset < 0 ? "before" : "after";
  const std::string steps = std::to_string(offset < 0 ? -offset : offset);
  return steps == "1" ? "weight on the token " + side : "weight " + steps + " tokens " + side;
}

// Calls visit(id, name, unit, help, value of a Head) for each statistic there may be.
template <class Visit>
void each_statistic(const HeadStatsSpec& spec, const Visit& visit) {
  visit("entropy", "entropy", "nats", "How widely a query spreads its weights: 0 is all on one key.",
        [](const Head& h) { return h.summary.entropy; });
  visit("entropy_share", "entropy share", "", "Entropy over that of equal weights on all keys the query sees.",
        [](const Head& h) { return h.summary.entropy_share; });
  visit("largest", "largest weight", "", "A query's largest weight (Voita et al. 2019: confidence).",
        [](const Head& h) { return h.summary.largest; });
  visit("sum_squares", "sum of squares", "",
        "Of a query's weights; one over it says among how many keys they are shared.",
        [](const Head& h) { return h.summary.sum_squares; });
  visit("distance", "distance", "tokens", "How far from the query its weights lie, before or after.",
        [](const Head& h) { return h.summary.distance; });
  for (std::size_t c = 0; c < spec.offsets.size(); ++c)
    visit("offset" + std::to_string(spec.offsets[c]), offset_name(spec.offsets[c]), "",
          "Weight on the key at position " + std::string(spec.offsets[c] < 0 ? "" : "+") +
              std::to_string(spec.offsets[c]) + " from the query.",
          [c](const Head& h) { return h.summary.offset_mass[c]; });
  for (std::size_t c = 0; c < spec.keys.size(); ++c)
    visit("key" + std::to_string(spec.keys[c]),
          spec.keys[c] == 0 ? "weight on the first key" : "weight on key " + std::to_string(spec.keys[c]), "",
          "Weight on one key, the same for all queries.", [c](const Head& h) { return h.summary.key_mass[c]; });
  for (std::size_t c = 0; c < spec.classes.size(); ++c)
    visit("class" + std::to_string(c), "weight on " + spec.classes[c], "", "Weight on all keys of this class.",
          [c](const Head& h) { return h.summary.class_mass[c]; });
  visit("duplicate", "weight on duplicates", "", "Weight on other keys of the same token.",
        [](const Head& h) { return h.summary.duplicate_mass; });
  visit("induction", "induction", "", "Weight on keys that follow the query's own token (Olsson et al. 2022).",
        [](const Head& h) { return h.summary.induction_mass; });
  visit("top_offset_share", "largest at one offset", "",
        "Share of queries whose largest weight lies at the commonest offset (Voita et al. 2019: positional).",
        [](const Head& h) { return h.summary.top_offset_share; });
  visit("received", "most received", "", "Mean weight on the key that receives most.",
        [](const Head& h) { return h.received; });
}

std::vector<Head> all_heads(const Page& page, bool norm) {
  std::vector<Head> heads;
  for (const HeadStats* layer : page.layers)
    for (std::int64_t head = 0; head < layer->spec().heads; ++head) heads.push_back(head_of(*layer, head, norm));
  return heads;
}

std::string statistics_json(const HeadStatsSpec& spec, const std::vector<Head>& plain, const std::vector<Head>& norm) {
  std::string out;
  each_statistic(spec, [&](const std::string& id, const std::string& name, const char* unit, const std::string& help,
                           const auto& value) {
    const auto none = [&](const Head& head) { return std::isnan(value(head)); };
    if (!out.empty() && std::all_of(plain.begin(), plain.end(), none)) return;  // not gathered; one there always is
    const auto values = [&](const std::vector<Head>& heads) {
      return array(heads, [&](const Head& head) { return number(value(head)); });
    };
    out += (out.empty() ? "" : ",") + ("{\"id\":" + json_string(id)) + ",\"name\":" + json_string(name) +
           ",\"unit\":" + json_string(unit) + ",\"help\":" + json_string(help) + ",\"values\":" + values(plain);
    if (!norm.empty()) out += ",\"norm\":" + values(norm);
    out += "}";
  });
  return "[" + out + "]";
}

std::string label_json(const HeadLabel& label) {
  return "{\"name\":" + json_string(label.name) + ",\"measure\":" + json_string(label.measure) +
         ",\"value\":" + number(label.value) + ",\"threshold\":" + number(label.threshold) +
         ",\"source\":" + json_string(label.source) + "}";
}

}  // namespace

std::string page_json(const Page& page, const PagePlan& plan, bool compressed) {
  const HeadStatsSpec& spec = page.layers[0]->spec();
  const std::vector<Head> plain = all_heads(page, false);
  const std::vector<Head> norm = spec.norm_weighted ? all_heads(page, true) : std::vector<Head>();
  std::string labels;
  for (std::size_t place = 0; place < plain.size(); ++place) {
    const HeadStats& stats = *page.layers[place / static_cast<std::size_t>(plan.heads)];
    (labels += place ? "," : "") += array(head_labels(stats, plain[place].summary), label_json);
  }
  const auto flag = [](bool value) { return value ? "true" : "false"; };
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  std::string out = "{\"format\":1,\"title\":" + json_string(page.title) + ",\"layers\":" + text(plan.layers) +
                    ",\"heads\":" + text(plan.heads) + ",\"q_len\":" + text(plan.q_len) +
                    ",\"kv_len\":" + text(plan.kv_len) + ",\"full\":" + flag(plan.full) +
                    ",\"norm\":" + flag(plan.norm) + ",\"compressed\":" + flag(compressed);
  if (!plan.full)
    out += ",\"bin\":" + text(spec.bin * plan.joined) + ",\"map\":[" + text(plan.rows) + "," + text(plan.columns) +
           "],\"top\":" + text(plan.top) + ",\"key_bytes\":" + text(plan.index_bytes) +
           ",\"received\":" + flag(plan.received);
  out += ",\"q_tokens\":" + array(page.q_tokens, json_string);
  out += ",\"kv_tokens\":" + (page.kv_tokens.empty() ? "null" : array(page.kv_tokens, json_string));
  for (const auto& [name, special] :
       {std::pair(",\"q_special\":", page.q_special), {",\"kv_special\":", page.kv_special}})
    out += name + (special.empty() ? "null" : array(special, [&](std::uint8_t one) { return text(one != 0); }));
  return out + ",\"statistics\":" + statistics_json(spec, plain, norm) + ",\"labels\":[" + labels + "]}";
}

}  // namespace multihead

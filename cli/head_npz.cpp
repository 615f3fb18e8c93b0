// SPDX-License-Identifier: Apache-2.0
// The statistics of a run's heads as an archive of arrays.
#include <algorithm>
#include <array>
#include <list>

#include "head_files.hpp"

namespace multihead::cli {

namespace {

constexpr std::array kLabels{"previous", "next",      "self",      "sink",       "separator", "broad",
                             "local",    "duplicate", "induction", "positional", "mixed"};

// Arrays whose elements live here until they are written.
class Archive {
 public:
  explicit Archive(std::vector<std::int64_t> heads) : heads_(std::move(heads)) {}

  template <class T>
  void add(const std::string& name, ElementType type, std::vector<T> values, std::vector<std::int64_t> shape) {
    const auto* from = reinterpret_cast<const std::byte*>(values.data());
    elements_.emplace_back(from, from + values.size() * sizeof(T));
    arrays_.push_back({name, type, std::move(shape), elements_.back()});
  }
  // values: layer by layer, head by head; the last axis is their number for each where that is more than one axis.
  template <class T>
  void add_of_heads(const std::string& name, ElementType type, const std::vector<T>& values,
                    const std::vector<std::int64_t>& after) {
    std::vector<std::int64_t> shape = heads_;
    shape.insert(shape.end(), after.begin(), after.end());
    add(name, type, values, std::move(shape));
  }
  std::span<const NamedArray> arrays() const { return arrays_; }

 private:
  std::vector<std::int64_t> heads_;
  std::list<std::vector<std::byte>> elements_;
  std::vector<NamedArray> arrays_;
};

void add_rows(Archive& archive, const std::vector<HeadStats>& layers, bool norm_weighted) {
  const HeadStatsSpec& spec = layers.front().spec();
  const std::string prefix = norm_weighted ? "norm_weighted_" : "";
  const auto add = [&](const std::string& name, ElementType type, auto member, const std::vector<std::int64_t>& shape) {
    auto values = (layers.front().plain().*member);
    values.clear();
    for (const HeadStats& layer : layers) {
      const auto& of = (norm_weighted ? layer.norm_weighted() : layer.plain()).*member;
      values.insert(values.end(), of.begin(), of.end());
    }
    if (!values.empty()) archive.add_of_heads(prefix + name, type, values, shape);
  };
  for (const auto& [name, member, several] : row_statistics()) {
    const auto rows = static_cast<std::size_t>(spec.heads * spec.q_len);
    const std::size_t width = rows == 0 ? 0 : (layers.front().plain().*member).size() / rows;
    std::vector<std::int64_t> shape{spec.q_len};
    if (several) shape.push_back(static_cast<std::int64_t>(width));
    add(name, ElementType::float32, member, shape);
  }
  add("top_keys", ElementType::int64, &HeadStatsRows::top_keys, {spec.q_len, spec.top});
  add("received", ElementType::float32, &HeadStatsRows::received, {spec.kv_len});
}

void add_means(Archive& archive, const std::vector<HeadStats>& layers, bool norm_weighted) {
  const HeadStatsSpec& spec = layers.front().spec();
  const std::string prefix = norm_weighted ? "norm_weighted_mean_" : "mean_";
  std::vector<HeadSummary> summaries;
  for (const HeadStats& layer : layers)
    for (std::int64_t head = 0; head < spec.heads; ++head) summaries.push_back(summarise(layer, head, norm_weighted));
  for (const auto& [name, value] : mean_statistics()) {
    std::vector<double> values;
    for (const HeadSummary& summary : summaries) values.push_back(summary.*value);
    archive.add_of_heads(prefix + name, ElementType::float64, values, {});
  }
  for (const auto& [name, several] : means_statistics()) {
    std::vector<double> values;
    for (const HeadSummary& summary : summaries)
      values.insert(values.end(), (summary.*several).begin(), (summary.*several).end());
    const auto width = static_cast<std::int64_t>((summaries.front().*several).size());
    archive.add_of_heads(prefix + name, ElementType::float64, values, {width});
  }
  std::vector<std::int64_t> offsets;
  for (const HeadSummary& summary : summaries) offsets.push_back(summary.top_offset);
  archive.add_of_heads(norm_weighted ? "norm_weighted_top_offset" : "top_offset", ElementType::int64, offsets, {});
}

void add_labels(Archive& archive, const std::vector<HeadStats>& layers) {
  std::vector<std::uint8_t> given;
  for (const HeadStats& layer : layers)
    for (std::int64_t head = 0; head < layer.spec().heads; ++head) {
      const std::vector<HeadLabel> labels = head_labels(layer, summarise(layer, head));
      for (const char* name : kLabels)
        given.push_back(
            std::any_of(labels.begin(), labels.end(), [&](const HeadLabel& label) { return label.name == name; }));
    }
  archive.add_of_heads("labels", ElementType::boolean, given, {static_cast<std::int64_t>(kLabels.size())});
}

// One text a line, as bytes.
template <class Texts>
void add_texts(Archive& archive, const std::string& name, const Texts& texts) {
  std::vector<std::uint8_t> lines;
  for (const auto& text : texts) {
    const std::string_view line = text;
    if (!lines.empty() || &text != &*std::begin(texts)) lines.push_back('\n');
    lines.insert(lines.end(), line.begin(), line.end());
  }
  const auto count = static_cast<std::int64_t>(lines.size());
  archive.add(name, ElementType::uint8, std::move(lines), {count});
}

}  // namespace

void write_npz(const std::string& path, const HeadTokens& tokens, const std::vector<HeadStats>& layers) {
  const HeadStatsSpec& spec = layers.front().spec();
  Archive archive({static_cast<std::int64_t>(layers.size()), spec.heads});
  const auto list = [&](const std::string& name, const std::vector<std::int64_t>& values) {
    archive.add(name, ElementType::int64, values, {static_cast<std::int64_t>(values.size())});
  };
  add_texts(archive, "tokens", tokens.texts);
  list("ids", tokens.ids);
  archive.add("special", ElementType::boolean, tokens.special, {tokens.size()});
  list("offsets", spec.offsets), list("keys", spec.keys);
  add_texts(archive, "classes", spec.classes);
  add_texts(archive, "label_names", kLabels);
  add_labels(archive, layers);
  for (const bool norm_weighted : {false, true}) {
    if (norm_weighted && !spec.norm_weighted) continue;
    add_rows(archive, layers, norm_weighted);
    add_means(archive, layers, norm_weighted);
  }
  multihead::write_npz(path, archive.arrays());
}

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// What the heads of a learned model look at in one input: pictures in the terminal, and pages.
#include "learned_heads.hpp"

#include <filesystem>
#include <sstream>

#include "compress.hpp"
#include "head_table.hpp"
#include "json_text.hpp"
#include "model.hpp"

namespace multihead::cli {

namespace {

std::int64_t heads_of(const LearnedExample::Layer& layer) {
  const std::size_t area = layer.q_tokens.size() * layer.kv_tokens.size();
  return area == 0 ? 0 : static_cast<std::int64_t>(layer.weights.size() / area);
}

View3<const float> weights_of(const LearnedExample::Layer& layer) {
  return {layer.weights.data(), {heads_of(layer), std::ssize(layer.q_tokens), std::ssize(layer.kv_tokens)}};
}

HeadStats stats_of(const LearnedExample::Layer& layer) {
  HeadStatsSpec spec;
  spec.heads = heads_of(layer);
  spec.q_len = std::ssize(layer.q_tokens);
  spec.kv_len = std::ssize(layer.kv_tokens);
  HeadStats stats(spec);
  statistics_of_weights(View4<const float>(layer.weights.data(), {1, spec.heads, spec.q_len, spec.kv_len}),
                        stats.request());
  return stats;
}

std::vector<std::string> printable_names(const std::vector<std::string>& tokens) {
  std::vector<std::string> names;
  for (const std::string& token : tokens) names.push_back(printable(token));
  return names;
}

}  // namespace

std::vector<LearnedStack> stacks_of(const LearnedExample& example) {
  std::vector<LearnedStack> stacks;
  for (const LearnedExample::Layer& layer : example.layers) {
    const std::string name = layer.name.substr(0, layer.name.rfind(' '));
    if (stacks.empty() || stacks.back().name != name) stacks.push_back({name, {}, {}});
    stacks.back().layers.push_back(&layer);
    stacks.back().stats.push_back(stats_of(layer));
  }
  return stacks;
}

void print_learned(std::ostream& out, const LearnedExample& example, std::size_t columns, ColorDepth depth) {
  out << "input   " << printable(example.input) << "\noutput  " << printable(example.output) << '\n';
  if (!example.wanted.empty())
    out << "wanted  " << printable(example.wanted) << (example.wanted == example.output ? "  (the same)\n" : "\n");
  for (const LearnedStack& stack : stacks_of(example))
    for (std::size_t i = 0; i < stack.layers.size(); ++i) {
      const LearnedExample::Layer& layer = *stack.layers[i];
      const View3<const float> weights = weights_of(layer);
      const std::vector<std::string> rows = printable_names(layer.q_tokens), keys = printable_names(layer.kv_tokens);
      for (std::int64_t h = 0; h < weights.extent(0); ++h) {
        const std::string label = label_text(head_labels(stack.stats[i], summarise(stack.stats[i], h)));
        out << '\n' << printable(layer.name) << ", head " << h << ": " << label << '\n';
        const MatrixView<const float> map(&weights(h, 0, 0), {weights.extent(1), weights.extent(2)});
        for (const std::string& line : picture(map, {columns, depth, rows, keys})) out << line << '\n';
      }
    }
}

std::vector<std::string> write_learned_pages(const std::string& option, const std::string& path,
                                             const std::string& title, const LearnedExample& example) {
  std::vector<std::string> written;
  const std::vector<LearnedStack> stacks = stacks_of(example);
  if (path == "-" && stacks.size() > 1)
    throw Error(ErrorCode::bad_option, option + " is -; this model has " + std::to_string(stacks.size()) +
                                           " stacks, each with a page: it must name a file");
  for (const LearnedStack& stack : stacks) {
    Page page;
    page.title = title + ": " + stack.name;
    std::vector<const HeadStats*> layers;
    std::vector<View3<const float>> weights;
    for (std::size_t i = 0; i < stack.layers.size(); ++i) {
      layers.push_back(&stack.stats[i]);
      weights.push_back(weights_of(*stack.layers[i]));
    }
    const LearnedExample::Layer& first = *stack.layers.front();
    page.q_tokens = first.q_tokens;
    if (first.kv_tokens != first.q_tokens) page.kv_tokens = first.kv_tokens;
    page.layers = layers, page.weights = weights;
    std::ostringstream text;
    write_page(text, page, compression());
    std::filesystem::path file = path;
    if (!written.empty()) {
      const std::string name = file.stem().string() + "-" + stack.name + file.extension().string();
      file.replace_filename(name);
    }
    write_text(option, file.string(), std::move(text).str());
    written.push_back(file.string());
  }
  return written;
}

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// The statistics of a run's heads as files: which, where to, and the page.
#include "head_files.hpp"

#include <algorithm>
#include <array>
#include <iostream>
#include <sstream>
#include <utility>

#include "compress.hpp"
#include "json_text.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

constexpr std::int64_t kFullTokens = 512;  // whose weights a page holds whole
constexpr std::int64_t kMapSide = 256;     // bins of a page's map beyond
constexpr std::int64_t kPageTop = 8;

struct Output {
  const char* option;
  const std::string& path;
};
std::array<Output, 4> outputs_of(const HeadsArguments& arguments) {
  return {{{"--html", arguments.html}, {"--json", arguments.json}, {"--csv", arguments.csv}, {"--npz", arguments.npz}}};
}

// 16, 32, 64 or a multiple of 128: the least with which a text has no more than kMapSide bins.
std::int64_t bin_for(std::int64_t tokens) {
  for (const std::int64_t bin : {16, 32, 64})
    if (bin * kMapSide >= tokens) return bin;
  return (tokens + kMapSide * 128 - 1) / (kMapSide * 128) * 128;
}

}  // namespace

HeadFiles::HeadFiles(const HeadsArguments& arguments) : arguments_(arguments) {
  const auto outputs = outputs_of(arguments);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    for (std::size_t j = i + 1; j < outputs.size(); ++j) {
      if (!outputs[i].path.empty() && same_file(outputs[i].path, outputs[j].path))
        throw Error(ErrorCode::bad_option, std::string("heads: ") + outputs[i].option + " and " + outputs[j].option +
                                               " name one file, " + outputs[i].path + "; they must differ");
    }
  if (arguments.npz == "-")
    throw Error(ErrorCode::bad_option, "heads: --npz is -; an archive goes to a file, not to standard output");
}

bool HeadFiles::any() const {
  const auto outputs = outputs_of(arguments_);
  return std::any_of(outputs.begin(), outputs.end(), [](const Output& output) { return !output.path.empty(); });
}

void HeadFiles::ask(HeadStatsSpec& spec) const {
  spec.top = std::min(arguments_.top.value_or(kPageTop), spec.kv_len);
  spec.received = spec.norm_weighted = true;
  if (!arguments_.html.empty() && spec.kv_len > kFullTokens) spec.bin = bin_for(spec.kv_len);
}

void HeadFiles::write(const HeadRun& run, const std::vector<HeadStats>& layers) const {
  std::vector<std::vector<std::string>> table;
  std::string address;  // of the head on the page
  bool quiet = false;
  const auto write = [&](const Output& output, const auto& text_of) {
    if (output.path.empty()) return;
    if (output.path == "-") {
      text_of(std::cout);
      quiet = true;
      return;
    }
    std::ostringstream text;
    text_of(text);
    write_text(output.option, output.path, std::move(text).str());
    table.push_back({output.option + 2, output.path});
  };
  const auto outputs = outputs_of(arguments_);
  if (arguments_.layer)
    address = "#layer=" + std::to_string(*arguments_.layer) + "&head=" + std::to_string(*arguments_.head);
  write(outputs[0], [&](std::ostream& out) { write_html(out, run, layers); });
  if (!table.empty()) table.back().back() += address;
  write(outputs[1], [&](std::ostream& out) { write_json(out, run, layers); });
  write(outputs[2], [&](std::ostream& out) { write_csv(out, run.tokens(), layers); });
  if (!arguments_.npz.empty()) {
    by_option("--npz", "write_npz", [&] { write_npz(arguments_.npz, run.tokens(), layers); });
    table.push_back({"npz", arguments_.npz});
  }
  if (!quiet) print_table(std::cout, table);
}

void write_html(std::ostream& out, const HeadRun& run, const std::vector<HeadStats>& layers) {
  const HeadTokens& tokens = run.tokens();
  std::vector<const HeadStats*> pointers;
  for (const HeadStats& layer : layers) pointers.push_back(&layer);
  Page page;
  page.title = tokens.title;
  if (page.title.size() > 80) page.title = page.title.substr(0, page.title.rfind(' ', 80)) + " ...";
  page.title = "Heads: " + page.title;
  if (!run.gates().empty()) page.title += " (" + run.gates() + ")";
  page.q_tokens = tokens.texts;
  page.layers = pointers;
  DenseWeights dense;
  if (tokens.size() <= kFullTokens) dense = run.dense();
  const std::int64_t heads = run.extents().heads, n = tokens.size();
  std::vector<View3<const float>> weights;
  std::vector<MatrixView<const float>> norms;
  for (const std::vector<float>& layer : dense.weights) {
    norms.emplace_back(dense.norms.data() + std::ssize(weights) * heads * n, MatrixView<float>::Extents{heads, n});
    weights.emplace_back(layer.data(), View3<float>::Extents{heads, n, n});
  }
  const std::vector<std::uint8_t> special(tokens.special.begin(), tokens.special.end());
  page.weights = weights, page.norms = norms, page.q_special = special;
  write_page(out, page, compression());
}

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// multihead ablate: heads switched off or scaled, one by one or together, and how far the output moves.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>

#include "arguments.hpp"
#include "gates.hpp"
#include "json_text.hpp"
#include "model.hpp"
#include "movement.hpp"
#include "multihead/encoder.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

// Texts packed one after the other, run with any gates.
class Gated {
 public:
  Gated(const AblateArguments& arguments, const Common& common)
      : encoder_(model_folder(arguments.model), {.products = arguments.products}) {
    const WordPiece tokenizer(read_wordpiece(model_folder(arguments.model)));
    options_.threads = common.threads;
    options_.target = common.target;
    for (const std::string& text : arguments.texts) {
      for (const Token& token : tokens_of(tokenizer, {text}, encoder_.extents().max_tokens)) ids_.push_back(token.id);
      starts_.push_back(std::ssize(ids_));
    }
    plain_ = run({});
  }

  const EncoderExtents& extents() const { return encoder_.extents(); }
  std::int64_t tokens() const { return starts_.back(); }
  Movement moved(std::span<const HeadGate> gates) const { return movement(plain_, run(gates), starts_); }

 private:
  Matrix<float> run(std::span<const HeadGate> gates) const {
    const Matrix<double> all = gates_of(gates, extents(), "ablate");
    Matrix<float> hidden(tokens(), extents().model_dim);
    encoder_.forward({.ids = ids_, .cu_seqlens = starts_, .gates = all}, hidden, options_);
    const std::span<const float> values = hidden.values();
    if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }))
      throw Error(ErrorCode::bad_option,
                  gates.empty()
                      ? "ablate: the model's output is not finite; there is nothing to compare"
                      : "ablate: with " + gates_text(gates) + " the output is not finite; gates must be nearer to 1");
    return hidden;
  }

  Encoder encoder_;
  LayerOptions options_;
  std::vector<std::int64_t> ids_, starts_{0};
  Matrix<float> plain_;
};

std::string json_of(const Movement& moved) {
  return "\"vector\": " + json_number(moved.vector) + ", \"hidden\": " + json_number(moved.hidden);
}
std::string json_of(const HeadGate& gate) {
  return "\"layer\": " + std::to_string(gate.layer) + ", \"head\": " + std::to_string(gate.head) +
         ", \"scale\": " + json_number(gate.scale);
}

std::string name_of(const HeadGate& gate) { return std::to_string(gate.layer) + '.' + std::to_string(gate.head); }

std::string title(const AblateArguments& arguments, const Gated& gated) {
  return std::to_string(arguments.texts.size()) + (arguments.texts.size() == 1 ? " text, " : " texts, ") +
         std::to_string(gated.tokens()) + " tokens";
}

void print_grid(const Gated& gated, const std::vector<Movement>& moved, double Movement::*number, int decimals) {
  std::vector<std::vector<std::string>> rows{{"layer"}};
  for (std::int64_t head = 0; head < gated.extents().heads; ++head) rows[0].push_back(std::to_string(head));
  for (std::int64_t layer = 0; layer < gated.extents().layers; ++layer) {
    rows.push_back({std::to_string(layer)});
    for (std::int64_t head = 0; head < gated.extents().heads; ++head)
      rows.back().push_back(
          fixed(moved[static_cast<std::size_t>(layer * gated.extents().heads + head)].*number, decimals));
  }
  print_table(std::cout, rows);
}

std::string json_start(const AblateArguments& arguments, const Gated& gated) {
  return "{\"texts\": " + std::to_string(arguments.texts.size()) + ", \"tokens\": " + std::to_string(gated.tokens()) +
         ", ";
}

// One head after the other, in the order of their effect.
int sweep(const AblateArguments& arguments, const Gated& gated) {
  std::vector<HeadGate> gates;
  std::vector<Movement> moved;
  for (std::int64_t layer = 0; layer < gated.extents().layers; ++layer)
    for (std::int64_t head = 0; head < gated.extents().heads; ++head) {
      gates.push_back({layer, head, arguments.scale});
      moved.push_back(gated.moved({&gates.back(), 1}));
    }
  std::vector<std::size_t> order(moved.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return moved[a].vector > moved[b].vector; });
  if (!arguments.json.empty()) {
    std::vector<std::string> heads;
    for (const std::size_t i : order) heads.push_back("\n{" + json_of(gates[i]) + ", " + json_of(moved[i]) + "}");
    write_text("--json", arguments.json, json_start(arguments, gated) + "\"heads\": " + json_list(heads) + "}\n");
  }
  if (arguments.json == "-") return 0;
  std::cout << title(arguments, gated) << "; the output of one head after the other times "
            << json_number(arguments.scale) << "\n\nSentence vectors: 1 - cosine to those of the whole model\n";
  print_grid(gated, moved, &Movement::vector, 4);
  std::cout << "\nLast hidden states: length of the change, as a share of theirs\n";
  print_grid(gated, moved, &Movement::hidden, 3);
  std::cout << "\nThe heads that move the sentence vectors most\n";
  std::vector<std::vector<std::string>> rows{{"head", "1 - cosine", "change of hidden states"}};
  for (std::size_t i = 0; i < std::min(order.size(), static_cast<std::size_t>(arguments.top)); ++i)
    rows.push_back({name_of(gates[order[i]]), fixed(moved[order[i]].vector, 4), fixed(moved[order[i]].hidden, 3)});
  print_table(std::cout, rows);
  return 0;
}

int together(const AblateArguments& arguments, const Gated& gated) {
  std::vector<HeadGate> gates = arguments.heads;
  for (HeadGate& gate : gates) gate.scale = arguments.scale;
  gates.insert(gates.end(), arguments.gates.begin(), arguments.gates.end());
  std::vector<std::string> list;
  for (const HeadGate& gate : gates) list.push_back("{" + json_of(gate) + "}");
  const Movement moved = gated.moved(gates);
  if (!arguments.json.empty())
    write_text("--json", arguments.json,
               json_start(arguments, gated) + "\"gates\": " + json_list(list) + ", " + json_of(moved) + "}\n");
  if (arguments.json == "-") return 0;
  std::cout << title(arguments, gated) << "; together: " << gates_text(gates) << "\nsentence vectors    1 - cosine "
            << fixed(moved.vector, 4) << "\nlast hidden states  change " << fixed(moved.hidden, 3)
            << " of their length\n";
  return 0;
}

}  // namespace

int ablate(const AblateArguments& arguments, const Common& common) {
  const Gated gated(arguments, common);
  return arguments.heads.empty() && arguments.gates.empty() ? sweep(arguments, gated) : together(arguments, gated);
}

}  // namespace multihead::cli

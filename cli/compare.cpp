// SPDX-License-Identifier: Apache-2.0
// multihead compare: two runs of an encoder, head by head.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "arguments.hpp"
#include "json_text.hpp"
#include "model.hpp"
#include "movement.hpp"
#include "multihead/encoder.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

// What a run is made of.
struct Setup {
  std::string text, model, option;  // option: that gave the model
  EncoderOptions types = {};
  std::optional<Target> target = {};
};

struct Run {
  std::string what;  // one line
  EncoderExtents extents{};
  std::int64_t tokens = 0;
  Matrix<float> hidden;
  std::vector<float> weights;  // (layers, heads, tokens, tokens)

  MatrixView<const float> of(std::int64_t layer, std::int64_t head) const {
    return {weights.data() + (layer * extents.heads + head) * tokens * tokens, {tokens, tokens}};
  }
};

Run run(const Setup& setup, int threads) {
  const std::filesystem::path folder = model_folder(setup.model, setup.option);
  const WordPiece tokenizer(read_wordpiece(folder));
  const Encoder encoder(folder, setup.types);
  std::vector<std::int64_t> ids;
  for (const Token& token : tokens_of(tokenizer, {setup.text}, encoder.extents().max_tokens)) ids.push_back(token.id);
  LayerOptions options;
  options.threads = threads;
  options.target = setup.target;
  Run run;
  run.extents = encoder.extents();
  run.tokens = std::ssize(ids);
  const bool rounds = setup.types.products != Type::float32;
  run.what = folder.filename().string() + ", " + std::string(type_name(setup.types.precision)) +
             (rounds ? ", products " + std::string(type_name(setup.types.products)) : "") + ", " +
             std::string(target_name(setup.target.value_or(chosen_target()))) + ", " + std::to_string(ids.size()) +
             " tokens: " + setup.text;
  const std::int64_t n = run.tokens, layers = run.extents.layers, heads = run.extents.heads;
  run.weights.resize(static_cast<std::size_t>(layers * heads * n * n));
  std::vector<WeightsRequest<float>> requests(static_cast<std::size_t>(layers));
  for (std::int64_t layer = 0; layer < layers; ++layer)
    requests[static_cast<std::size_t>(layer)].per_head = {run.weights.data() + layer * heads * n * n, {1, heads, n, n}};
  run.hidden = Matrix<float>(n, run.extents.model_dim);
  encoder.forward({.ids = ids}, run.hidden, options, {.weights = requests});
  return run;
}

// Over the rows of one head.
struct Difference {
  std::int64_t layer, head;
  double entropy = 0, entropy_most = 0;      // |H_b - H_a|, nats: mean, and the largest
  double largest = 0, largest_most = 0;      // of the largest weight, likewise
  double variation = 0, variation_most = 0;  // 1/2 sum_j |p_b - p_a|
  double same_top = 0;                       // share of rows whose largest weight is at the same key
};

struct Row {
  double entropy = 0, largest = -1;
  std::int64_t top = -1;

  Row(MatrixView<const float> weights, std::int64_t i) {
    for (std::int64_t j = 0; j < weights.extent(1); ++j) {
      const double p = weights(i, j);
      if (p > 0) entropy -= p * std::log(p);
      if (p > largest) largest = p, top = j;
    }
  }
};

Difference difference(const Run& a, const Run& b, std::int64_t layer, std::int64_t head) {
  Difference d{layer, head};
  const MatrixView<const float> of_a = a.of(layer, head), of_b = b.of(layer, head);
  for (std::int64_t i = 0; i < a.tokens; ++i) {
    const Row row_a(of_a, i), row_b(of_b, i);
    double variation = 0;
    for (std::int64_t j = 0; j < a.tokens; ++j) variation += 0.5 * std::abs(double{of_b(i, j)} - of_a(i, j));
    const double entropy = std::abs(row_b.entropy - row_a.entropy), largest = std::abs(row_b.largest - row_a.largest);
    d.entropy += entropy, d.entropy_most = std::max(d.entropy_most, entropy);
    d.largest += largest, d.largest_most = std::max(d.largest_most, largest);
    d.variation += variation, d.variation_most = std::max(d.variation_most, variation);
    d.same_top += row_a.top == row_b.top;
  }
  for (double* mean : {&d.entropy, &d.largest, &d.variation, &d.same_top}) *mean /= static_cast<double>(a.tokens);
  return d;
}

void check_alike(const Run& a, const Run& b) {
  const auto check = [](const char* what, std::int64_t of_a, std::int64_t of_b) {
    if (of_a != of_b)
      throw Error(ErrorCode::bad_option, "compare: the first run has " + std::to_string(of_a) + ' ' + what +
                                             ", the second " + std::to_string(of_b) + "; they must be equal");
  };
  check("layers", a.extents.layers, b.extents.layers);
  check("heads", a.extents.heads, b.extents.heads);
  check("tokens", a.tokens, b.tokens);
}

void print(const Run& a, const Run& b, const std::vector<Difference>& differences, const CompareArguments& arguments) {
  std::cout << "a  " << printable(a.what) << "\nb  " << printable(b.what) << '\n';
  if (a.extents.model_dim == b.extents.model_dim) {
    const std::int64_t starts[2] = {0, a.tokens};
    const Movement moved = movement(a.hidden, b.hidden, starts);
    std::cout << "sentence vectors: 1 - cosine " << brief(moved.vector) << "; last hidden states: change "
              << brief(moved.hidden) << " of their length\n";
  }
  std::cout
      << "\nOver the rows of a head: entropy in nats, the largest weight, and half the sum of |b - a| over a row's "
         "weights\n";
  std::vector<std::vector<std::string>> rows{
      {"head", "|dH| mean", "most", "|d largest| mean", "most", "variation mean", "most", "same top key"}};
  for (std::size_t i = 0; i < std::min(differences.size(), static_cast<std::size_t>(arguments.top)); ++i) {
    const Difference& d = differences[i];
    rows.push_back({std::to_string(d.layer) + '.' + std::to_string(d.head), brief(d.entropy), brief(d.entropy_most),
                    brief(d.largest), brief(d.largest_most), brief(d.variation), brief(d.variation_most),
                    fixed(100 * d.same_top, 1) + " %"});
  }
  print_table(std::cout, rows);
}

std::string json(const Run& a, const Run& b, const std::vector<Difference>& differences) {
  std::vector<std::string> heads;
  for (const Difference& d : differences) {
    std::string head = "\n{\"layer\": " + std::to_string(d.layer) + ", \"head\": " + std::to_string(d.head);
    for (const auto& [name, value] : {std::pair{"entropy_mean", d.entropy},
                                      {"entropy_most", d.entropy_most},
                                      {"largest_mean", d.largest},
                                      {"largest_most", d.largest_most},
                                      {"variation_mean", d.variation},
                                      {"variation_most", d.variation_most},
                                      {"same_top", d.same_top}})
      head += ", \"" + std::string(name) + "\": " + json_number(value);
    heads.push_back(head + "}");
  }
  std::string moved;
  if (a.extents.model_dim == b.extents.model_dim) {
    const std::int64_t starts[2] = {0, a.tokens};
    const Movement movement_of = movement(a.hidden, b.hidden, starts);
    moved = ", \"vector\": " + json_number(movement_of.vector) + ", \"hidden\": " + json_number(movement_of.hidden);
  }
  return "{\"a\": " + json_text(printable(a.what)) + ", \"b\": " + json_text(printable(b.what)) + moved +
         ", \"heads\": " + json_list(heads) + "}\n";
}

}  // namespace

int compare(const CompareArguments& arguments, const Common& common) {
  if (arguments.other.empty() && !arguments.precision && !arguments.products && !arguments.other_target &&
      !arguments.other_text)
    throw Error(ErrorCode::bad_option,
                "compare: nothing tells the second run apart; give --other, --precision, --products, --other-target "
                "or --other-text");
  const Setup first{arguments.texts.front(), arguments.model, "--model", {}, common.target};
  const EncoderOptions types{arguments.precision.value_or(Type::float32), arguments.products.value_or(Type::float32)};
  const Setup second{arguments.other_text.value_or(arguments.texts.front()),
                     arguments.other.empty() ? arguments.model : arguments.other,
                     arguments.other.empty() ? "--model" : "--other", types,
                     arguments.other_target ? arguments.other_target : common.target};
  const Run a = run(first, common.threads), b = run(second, common.threads);
  check_alike(a, b);
  std::vector<Difference> differences;
  for (std::int64_t layer = 0; layer < a.extents.layers; ++layer)
    for (std::int64_t head = 0; head < a.extents.heads; ++head) differences.push_back(difference(a, b, layer, head));
  std::stable_sort(differences.begin(), differences.end(),
                   [](const Difference& x, const Difference& y) { return x.variation > y.variation; });
  if (!arguments.json.empty()) write_text("--json", arguments.json, json(a, b, differences));
  if (arguments.json != "-") print(a, b, differences, arguments);
  return 0;
}

}  // namespace multihead::cli

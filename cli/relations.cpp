// SPDX-License-Identifier: Apache-2.0
// multihead relations: which heads look from a word to the one that it belongs to, relation by relation.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "arguments.hpp"
#include "json_text.hpp"
#include "model.hpp"
#include "print.hpp"
#include "relation_trials.hpp"

namespace multihead::cli {

namespace {

constexpr int kDirections = 2;
constexpr std::int64_t kFewestSentences = 10;  // of each half, for bounds

struct Judged {
  const MarkedText& text;
  MarkedTrials trials;
  EncoderExtents extents;

  std::int64_t sentences() const { return std::ssize(text.sentences); }
  std::int64_t split() const { return (sentences() + 1) / 2; }
};

const RelationTrials& of(const BothDirections& both, int direction) {
  return direction == 0 ? both.to_head : both.from_head;
}
const char* looks(int direction) { return direction == 0 ? "dep>head" : "head>dep"; }

std::string share(double value) { return std::isnan(value) ? "-" : fixed(100 * value, 1); }
std::string signed_share(double value) { return (value >= 0 ? "+" : "") + share(value); }
std::string signed_offset(std::int64_t offset) { return (offset > 0 ? "+" : "") + std::to_string(offset); }

std::string head_name(const Judged& judged, std::int64_t head) {
  return std::to_string(head / judged.extents.heads) + '.' + std::to_string(head % judged.extents.heads);
}

// Head and offset chosen on the first half of the sentences, judged on the second.
struct HeldOut {
  RelationHeldOut found;
  bool chosen;   // by pairs of the first half
  bool bounded;  // enough sentences of both halves have such pairs
};

HeldOut held_out_of(const Judged& judged, const RelationTrials& asked) {
  HeldOut held{held_out(asked, judged.split(), judged.sentences()), false, false};
  std::int64_t sentences[2] = {}, last = -1;
  for (const std::int64_t sentence : asked.sentences)
    if (sentence != last) ++sentences[sentence >= judged.split()], last = sentence;
  held.chosen = sentences[0] > 0;
  held.bounded = std::min(sentences[0], sentences[1]) >= kFewestSentences;
  return held;
}

// The columns from pairs to gain; what was chosen by no pair is "-".
void add_cells(std::vector<std::string>& row, const Judged& judged, const RelationBest& best, bool chosen) {
  row.push_back(std::to_string(best.pairs));
  if (chosen)
    row.insert(row.end(), {head_name(judged, best.head), share(best.accuracy), share(best.others),
                           signed_offset(best.offset), share(best.offset_accuracy), signed_share(best.gain())});
  else
    row.insert(row.end(), 6, "-");
}

// Whether every relation's bounds are there.
bool print_best(const Judged& judged, const std::vector<BothDirections>& trials) {
  std::vector<std::vector<std::string>> rows{{"relation", "looks", "pairs", "head", "sees", "others", "offset", "finds",
                                              "gain", "|", "pairs", "head", "sees", "others", "offset", "finds", "gain",
                                              "95 %"}};
  bool bounded = true;
  for (std::size_t relation = 0; relation < trials.size(); ++relation)
    for (int direction = 0; direction < kDirections; ++direction) {
      const RelationTrials& asked = of(trials[relation], direction);
      const HeldOut held = held_out_of(judged, asked);
      rows.push_back({printable(judged.text.relations[relation]), looks(direction)});
      add_cells(rows.back(), judged, best_of(asked, 0, judged.sentences()), !asked.sentences.empty());
      rows.back().push_back("|");
      add_cells(rows.back(), judged, held.found.best, held.chosen);
      rows.back().push_back(held.bounded ? signed_share(held.found.low) + " .. " + signed_share(held.found.high) : "-");
      bounded = bounded && held.bounded;
    }
  print_table(std::cout, rows);
  return bounded;
}

// A grid of layers and heads for each relation and direction.
void print_all(const Judged& judged, const std::vector<BothDirections>& trials, const std::string& weights) {
  for (std::size_t relation = 0; relation < trials.size(); ++relation)
    for (int direction = 0; direction < kDirections; ++direction) {
      const RelationTrials& asked = of(trials[relation], direction);
      if (asked.sentences.empty()) continue;
      std::cout << '\n'
                << printable(judged.text.relations[relation]) << ", " << looks(direction) << ", " << weights
                << ": the share of pairs that each head sees\n";
      std::vector<std::vector<std::string>> rows{{"layer"}};
      for (std::int64_t head = 0; head < judged.extents.heads; ++head) rows[0].push_back(std::to_string(head));
      for (std::int64_t layer = 0; layer < judged.extents.layers; ++layer) {
        rows.push_back({std::to_string(layer)});
        for (std::int64_t head = 0; head < judged.extents.heads; ++head)
          rows.back().push_back(
              share(head_accuracy(asked, layer * judged.extents.heads + head, 0, judged.sentences())));
      }
      print_table(std::cout, rows);
    }
}

std::string json_best(const Judged& judged, const RelationBest& best, bool chosen) {
  const auto count = [&](std::int64_t value) { return chosen ? std::to_string(value) : "null"; };
  const auto number = [&](double value) { return chosen ? json_number(value) : "null"; };
  return "\"pairs\": " + std::to_string(best.pairs) + ", \"layer\": " + count(best.head / judged.extents.heads) +
         ", \"head\": " + count(best.head % judged.extents.heads) + ", \"accuracy\": " + number(best.accuracy) +
         ", \"others\": " + number(best.others) + ", \"offset\": " + count(best.offset) +
         ", \"offset_accuracy\": " + number(best.offset_accuracy);
}

std::string json_weights(const Judged& judged, const RelationTrials& asked) {
  const HeldOut held = held_out_of(judged, asked);
  const auto bound = [&](double value) { return held.bounded ? json_number(value) : "null"; };
  std::vector<std::string> layers;
  for (std::int64_t layer = 0; layer < judged.extents.layers; ++layer) {
    std::vector<std::string> heads;
    for (std::int64_t head = 0; head < judged.extents.heads; ++head)
      heads.push_back(json_number(head_accuracy(asked, layer * judged.extents.heads + head, 0, judged.sentences())));
    layers.push_back(json_list(heads));
  }
  return "{\"best\": {" + json_best(judged, best_of(asked, 0, judged.sentences()), !asked.sentences.empty()) +
         "}, \"held_out\": {" + json_best(judged, held.found.best, held.chosen) +
         ", \"gain_95\": " + json_list({bound(held.found.low), bound(held.found.high)}) +
         "}, \"accuracy\": " + json_list(layers) + "}";
}

std::string json(const Judged& judged) {
  std::string out = "{\"sentences\": " + std::to_string(judged.sentences()) +
                    ", \"tokens\": " + std::to_string(judged.trials.tokens) +
                    ", \"layers\": " + std::to_string(judged.extents.layers) +
                    ", \"heads\": " + std::to_string(judged.extents.heads) + ", \"relations\": [";
  bool first = true;
  for (std::size_t relation = 0; relation < judged.text.relations.size(); ++relation)
    for (int direction = 0; direction < kDirections; ++direction) {
      const RelationTrials& asked = of(judged.trials.plain[relation], direction);
      std::vector<std::string> offsets;
      for (std::int64_t offset = -kFarthestOffset; offset <= kFarthestOffset; ++offset)
        if (offset != 0)
          offsets.push_back("\"" + std::to_string(offset) +
                            "\": " + json_number(offset_accuracy(asked, offset, 0, judged.sentences())));
      std::string by_offset = json_list(offsets);
      by_offset.front() = '{', by_offset.back() = '}';
      out += std::string(first ? "\n" : ",\n") + "{\"relation\": " + json_text(judged.text.relations[relation]) +
             ", \"looks\": " + (direction == 0 ? "\"dependent\"" : "\"head\"") +
             ", \"pairs\": " + std::to_string(asked.sentences.size()) + ", \"offsets\": " + by_offset +
             ",\n \"plain\": " + json_weights(judged, asked) +
             ",\n \"norm_weighted\": " + json_weights(judged, of(judged.trials.norm_weighted[relation], direction)) +
             "}";
      first = false;
    }
  return out + "\n]}\n";
}

MarkedText marked_text(const std::string& file) {
  if (file.empty()) return parse_marked_text(kMarkedSentences, "the command's own sentences");
  const std::string bytes = read_text(file, "relations");
  MarkedText text;
  by_option("relations", "parse_marked_text", [&] { text = parse_marked_text(bytes, file); });
  return text;
}

void print_tables(const Judged& judged, bool all) {
  std::cout
      << judged.sentences() << " sentences, " << judged.extents.layers << " layers of " << judged.extents.heads
      << " heads; shares in per cent.\n"
         "sees    of the pairs: the first word's most attended other word, in this head, is the second\n"
         "others  of the sentence's other words, in this head: theirs is that one too\n"
         "finds   of the pairs: the second word stands at this offset from the first\n"
         "gain    sees - finds\n"
         "Left of the bar head and offset are the best of these very pairs, which flatters them. Right of it they "
         "are chosen\non sentences 1 to "
      << judged.split() << " and judged on the others; 95 % of the redrawings of those have a gain in these bounds.\n";
  std::cout << "\nPlain weights\n";
  bool bounded = print_best(judged, judged.trials.plain);
  std::cout << "\nWeights times the length of the value vector after Wo\n";
  bounded = print_best(judged, judged.trials.norm_weighted) && bounded;
  if (!bounded)
    std::cout << "\nBounds are - where fewer than " << kFewestSentences
              << " sentences of either half have such pairs.\n";
  if (!all) return;
  print_all(judged, judged.trials.plain, "plain weights");
  print_all(judged, judged.trials.norm_weighted, "norm-weighted");
}

}  // namespace

int relations(const RelationsArguments& arguments, const Common& common) {
  if (!arguments.file.empty() && arguments.json != "-" && same_file(arguments.file, arguments.json))
    throw Error(ErrorCode::bad_option,
                "relations: --json names the file of sentences, " + arguments.file + "; they must differ");
  const MarkedText text = marked_text(arguments.file);
  if (text.sentences.empty()) throw Error(ErrorCode::bad_option, "relations: there is no sentence");
  const std::filesystem::path folder = model_folder(arguments.model);
  const WordPiece tokenizer(read_wordpiece(folder));
  const Encoder encoder(folder, {.products = arguments.products});
  LayerOptions options;
  options.threads = common.threads;
  options.target = common.target;
  const Judged judged{text, ask_heads(text, arguments.punctuation, tokenizer, encoder, options), encoder.extents()};
  if (!arguments.json.empty()) write_text("--json", arguments.json, json(judged));
  if (arguments.json != "-") print_tables(judged, arguments.all);
  return 0;
}

}  // namespace multihead::cli

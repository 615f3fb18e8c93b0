// SPDX-License-Identifier: Apache-2.0
// multihead heads: what each head of a model looks at in a sentence, and a map of one of them.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <tuple>

#include "arguments.hpp"
#include "heatmap.hpp"
#include "model.hpp"
#include "multihead/encoder.hpp"
#include "token_map.hpp"

namespace multihead::cli {

namespace {

// From the token that looks to the one it looks at.
struct Link {
  std::int64_t query, key;
  float weight;
};

struct Head {
  std::int64_t layer, head;
  double special, self;  // means over all rows: the weight on [CLS], [SEP] and their kin, and on the row's own token
  double strength;       // mean over ordinary rows: the largest weight on an ordinary token that is no neighbour
  std::vector<Link> links;
};

// A sentence as the model sees it, and what its heads made of it: (layers, heads, tokens, tokens).
struct Seen {
  std::vector<std::string> tokens;
  std::vector<char> special;
  EncoderExtents extents;
  std::vector<float> weights;

  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  MatrixView<const float> of(std::int64_t layer, std::int64_t head) const {
    const std::int64_t n = size();
    return {weights.data() + (layer * extents.heads + head) * n * n, {n, n}};
  }
  bool ordinary(std::int64_t i) const { return !special[static_cast<std::size_t>(i)]; }
};

Seen look(const HeadsArguments& arguments, const Common& common) {
  const std::filesystem::path folder = model_folder(arguments.model);
  const WordPiece tokenizer(read_wordpiece(folder));
  const Encoder encoder(folder);
  const std::vector<Token> tokens = tokens_of(tokenizer, arguments.texts, encoder.extents().max_tokens);
  Seen seen{{}, {}, encoder.extents(), {}};
  std::vector<std::int64_t> ids, types;
  for (const Token& token : tokens) {
    ids.push_back(token.id);
    types.push_back(encoder.extents().token_types > 1 ? token.type : 0);
    seen.tokens.push_back(printable(tokenizer.text(token.id)));
    seen.special.push_back(tokenizer.special(token.id));
  }
  const std::int64_t n = seen.size(), heads = seen.extents.heads;
  seen.weights.resize(static_cast<std::size_t>(seen.extents.layers * heads * n * n));
  std::vector<WeightsRequest<float>> requests(static_cast<std::size_t>(seen.extents.layers));
  for (std::size_t layer = 0; layer < requests.size(); ++layer)
    requests[layer].per_head = {seen.weights.data() + static_cast<std::int64_t>(layer) * heads * n * n,
                                {1, heads, n, n}};
  Matrix<float> hidden(n, seen.extents.model_dim);
  LayerOptions options;
  options.threads = common.threads;
  options.target = common.target;
  encoder.forward({ids, {}, types}, hidden, options, {{}, requests});
  return seen;
}

Head summary(const Seen& seen, std::int64_t layer, std::int64_t head, const HeadsArguments& arguments) {
  const MatrixView<const float> weights = seen.of(layer, head);
  const std::int64_t n = seen.size();
  Head found{layer, head, 0, 0, 0, {}};
  std::int64_t ordinary_rows = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    float largest = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const bool between_others = i != j && seen.ordinary(i) && seen.ordinary(j);
      if (between_others && std::abs(i - j) > 1) largest = std::max(largest, weights(i, j));
      if (!seen.ordinary(j)) found.special += weights(i, j);
      if (between_others || arguments.special) found.links.push_back({i, j, weights(i, j)});
    }
    found.self += weights(i, i);
    found.strength += largest;
    ordinary_rows += seen.ordinary(i);
  }
  found.special /= static_cast<double>(n), found.self /= static_cast<double>(n);
  found.strength /= static_cast<double>(std::max<std::int64_t>(ordinary_rows, 1));
  const auto kept = std::min<std::size_t>(found.links.size(), static_cast<std::size_t>(arguments.links));
  // Equal weights in the order of reading.
  const auto stronger = [](const Link& a, const Link& b) {
    return std::tuple(-a.weight, a.query, a.key) < std::tuple(-b.weight, b.query, b.key);
  };
  std::partial_sort(found.links.begin(), found.links.begin() + static_cast<std::ptrdiff_t>(kept), found.links.end(),
                    stronger);
  found.links.resize(kept);
  found.links.shrink_to_fit();
  return found;
}

void print_sentence(const Seen& seen, std::size_t columns) {
  std::string line;
  for (const std::string& token : seen.tokens) {
    if (!line.empty() && columns_of(line) + 1 + columns_of(token) > columns) {
      std::cout << line << '\n';
      line.clear();
    }
    line += (line.empty() ? "" : " ") + token;
  }
  std::cout << line << '\n';
}

void print_heads(const Seen& seen, const std::vector<Head>& heads, std::size_t columns) {
  constexpr std::size_t kNumbers = 32;  // columns before the links
  std::cout << "layer  head  special  itself  strongest links, each with its weight\n";
  for (const Head& head : heads) {
    std::string line = fitted(std::to_string(head.layer), 7) + fitted(std::to_string(head.head), 6) +
                       fitted(fixed(head.special, 2), 9) + fitted(fixed(head.self, 2), 8);
    std::size_t used = kNumbers;
    for (const Link& link : head.links) {
      const std::string text = seen.tokens[static_cast<std::size_t>(link.query)] + " > " +
                               seen.tokens[static_cast<std::size_t>(link.key)] + ' ' + fixed(link.weight, 2);
      if (used > kNumbers && used + columns_of(text) > columns) break;
      line += text + "   ";
      used += columns_of(text) + 3;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    std::cout << line << '\n';
  }
}

const Head& chosen(const std::vector<Head>& heads, const Seen& seen, const HeadsArguments& arguments) {
  if (!arguments.layer)
    return *std::max_element(heads.begin(), heads.end(),
                             [](const Head& a, const Head& b) { return a.strength < b.strength; });
  const auto check = [](const char* option, std::int64_t given, std::int64_t count) {
    if (given >= count)
      throw Error(ErrorCode::bad_option, std::string(option) + " is " + std::to_string(given) + "; this model has " +
                                             std::to_string(count) + ", counted from 0");
  };
  check("--layer", *arguments.layer, seen.extents.layers);
  check("--head", *arguments.head, seen.extents.heads);
  return heads[static_cast<std::size_t>(*arguments.layer * seen.extents.heads + *arguments.head)];
}

}  // namespace

int heads(const HeadsArguments& arguments, const Common& common) {
  const Seen seen = look(arguments, common);
  std::vector<Head> heads;
  for (std::int64_t layer = 0; layer < seen.extents.layers; ++layer)
    for (std::int64_t head = 0; head < seen.extents.heads; ++head)
      heads.push_back(summary(seen, layer, head, arguments));
  const Head& shown = chosen(heads, seen, arguments);
  const std::size_t columns = terminal_columns();
  print_sentence(seen, columns);
  std::cout << '\n'
            << seen.extents.layers << " layers of " << seen.extents.heads << " heads, " << seen.size()
            << " tokens. \"a > b\": a looks at b.\n"
            << "special, itself: the mean weight on [CLS], [SEP] and their kin, and on the token itself"
            << (arguments.special ? ".\n\n" : ";\nthe links leave both out (--special shows them).\n\n");
  print_heads(seen, heads, columns);
  std::cout << '\n';
  const std::string title = "Layer " + std::to_string(shown.layer) + ", head " + std::to_string(shown.head) +
                            (arguments.layer ? "" : ", whose far links are the strongest (--layer and --head choose)") +
                            ": each row is a token and what it looks at";
  for (const Block::Line& line :
       token_map(title, seen.tokens, seen.of(shown.layer, shown.head), color_depth(arguments.color), columns).lines)
    std::cout << line.text << '\n';
  return 0;
}

}  // namespace multihead::cli

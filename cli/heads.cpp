// SPDX-License-Identifier: Apache-2.0
// multihead heads: what each head of a model looks at in a text, one of them up close, and files of all of it.
#include <algorithm>
#include <iostream>

#include "arguments.hpp"
#include "head_files.hpp"
#include "head_rows.hpp"
#include "head_table.hpp"
#include "model.hpp"
#include "terminal.hpp"

namespace multihead::cli {

namespace {

void print_sentence(const HeadTokens& tokens, std::size_t columns) {
  std::string line;
  for (const std::string& token : tokens.names) {
    if (!line.empty() && columns_of(line) + 1 + columns_of(token) > columns) {
      std::cout << line << '\n';
      line.clear();
    }
    line += (line.empty() ? "" : " ") + token;
  }
  std::cout << line << '\n';
}

void check_place(const HeadsArguments& arguments, const EncoderExtents& extents) {
  const auto check = [](const char* option, const std::optional<std::int64_t>& given, std::int64_t count) {
    if (given && *given >= count)
      throw Error(ErrorCode::bad_option, std::string(option) + " is " + std::to_string(*given) + "; this model has " +
                                             std::to_string(count) + ", counted from 0");
  };
  check("--layer", arguments.layer, extents.layers);
  check("--head", arguments.head, extents.heads);
}

const Head& chosen(const std::vector<Head>& heads, const EncoderExtents& extents, const HeadsArguments& arguments) {
  if (arguments.layer) return heads[static_cast<std::size_t>(*arguments.layer * extents.heads + *arguments.head)];
  return *std::max_element(heads.begin(), heads.end(),
                           [](const Head& a, const Head& b) { return a.strength < b.strength; });
}

std::string title_of(const Head& head, const HeadsArguments& arguments) {
  const std::string why = head.strength > 0 ? ", whose far links are the strongest" : "; no head has far links";
  return "Layer " + std::to_string(head.layer) + ", head " + std::to_string(head.head) +
         (arguments.layer ? "" : why + " (--layer and --head choose)");
}

void print_overview(const HeadRun& run, const std::vector<Head>& heads, const HeadsArguments& arguments,
                    std::size_t columns) {
  print_sentence(run.tokens(), columns);
  std::cout << '\n'
            << run.extents().layers << " layers of " << run.extents().heads << " heads, " << run.tokens().size()
            << " tokens. \"a > b\": a looks at b.\n"
            << "special, itself: the mean weight on [CLS], [SEP] and their kin, and on the token itself"
            << (arguments.special ? ".\n\n" : ";\nthe links leave both out (--special shows them).\n\n");
  if (!run.gates().empty()) std::cout << "The output of head " << run.gates() << ".\n\n";
  print_heads(run.tokens(), heads, arguments, line_columns());
  std::cout << '\n';
}

}  // namespace

int heads(const HeadsArguments& arguments, const Common& common) {
  const HeadFiles files(arguments);
  const HeadRun run(arguments, common);
  check_place(arguments, run.extents());
  const HeadTokens& tokens = run.tokens();
  const std::int64_t row = arguments.row ? row_of(tokens, *arguments.row) : 0;
  HeadStatsSpec spec = run.spec();
  spec.top = top_for_links(tokens, arguments.links);
  if (arguments.top) spec.top = std::max(spec.top, top_for_rows(tokens, *arguments.top));
  if (files.any()) files.ask(spec);
  const std::vector<HeadStats> layers = run.statistics(spec);
  if (files.any()) {
    files.write(run, layers);
    return 0;
  }

  const std::size_t columns = terminal_columns();
  const std::vector<Head> all = heads_of(tokens, layers, arguments);
  const Head& shown = chosen(all, run.extents(), arguments);
  const std::string title = title_of(shown, arguments);
  const RowsOfHead rows{tokens, layers[static_cast<std::size_t>(shown.layer)], shown,
                        arguments.top ? line_columns() : columns, color_depth(arguments.color)};
  if (arguments.row) {
    print_row(title, rows, run.weights(shown.layer, shown.head), row);
  } else if (arguments.top) {
    print_top(title, rows, std::min(*arguments.top, tokens.size()));
  } else {
    print_overview(run, all, arguments, columns);
    print_map(title, rows, run.weights(shown.layer, shown.head));
  }
  return 0;
}

}  // namespace multihead::cli

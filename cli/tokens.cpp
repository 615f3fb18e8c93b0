// SPDX-License-Identifier: Apache-2.0
// multihead tokens: the tokens of a text and the bytes that each stands for.
#include <iostream>
#include <limits>

#include "arguments.hpp"
#include "model.hpp"
#include "multihead/model_files.hpp"
#include "print.hpp"

namespace multihead::cli {

int tokens(const TokensArguments& arguments) {
  const WordPiece tokenizer(read_wordpiece(model_folder(arguments.model)));
  const std::vector<Token> tokens = tokens_of(tokenizer, arguments.texts, std::numeric_limits<std::int64_t>::max());
  std::size_t widest = 5;
  for (const Token& token : tokens) widest = std::max(widest, columns_of(printable(tokenizer.text(token.id))));
  std::vector<std::vector<std::string>> rows{{"id", "bytes", fitted("token", widest) + "  text"}};
  for (const Token& token : tokens) {
    const bool added = token.begin == token.end;
    const std::string& text = arguments.texts[static_cast<std::size_t>(token.type)];
    rows.push_back(
        {std::to_string(token.id), added ? "" : std::to_string(token.begin) + "-" + std::to_string(token.end),
         fitted(printable(tokenizer.text(token.id)), widest) +
             (added ? "" : "  " + printable(std::string_view(text).substr(token.begin, token.end - token.begin)))});
  }
  print_table(std::cout, rows);
  std::cout << tokens.size() << " tokens\n";
  return 0;
}

}  // namespace multihead::cli

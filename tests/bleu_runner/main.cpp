// SPDX-License-Identifier: Apache-2.0
// BLEU of corpora on standard input, for bleu_peer_test.py: a line of tokens, numbers, a hypothesis, the next its
// reference; a line "=" ends a corpus, and its value, brevity penalty and precisions are printed.
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>

#include "multihead/translation.hpp"

int main() {
  std::vector<std::vector<std::int64_t>> sides[2];
  int side = 0;
  for (std::string line; std::getline(std::cin, line);) {
    if (line != "=") {
      std::istringstream in(line);
      sides[side].emplace_back();
      for (std::int64_t token; in >> token;) sides[side].back().push_back(token);
      side = 1 - side;
      continue;
    }
    const multihead::Bleu score = multihead::bleu(sides[0], sides[1]);
    std::printf("%.17g %.17g", score.value, score.brevity_penalty);
    for (const double precision : score.precisions) std::printf(" %.17g", precision);
    std::printf("\n");
    for (auto& texts : sides) texts.clear();
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
// A user of the library multihead_models: the tokens of a word.
#include <cstdio>
#include <multihead/wordpiece.hpp>

int main() {
  multihead::WordPieceModel model;
  model.vocabulary = {"[UNK]", "[CLS]", "[SEP]", "hello", "##s"};
  for (const multihead::Token& token : multihead::WordPiece(model).encode("Hellos"))
    std::printf("%d\n", static_cast<int>(token.id));
}

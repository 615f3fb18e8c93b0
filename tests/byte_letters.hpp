// SPDX-License-Identifier: Apache-2.0
// The least tokenizer of bytes: the letters that stand for them, and a vocabulary of these alone.
#pragma once

#include <string>
#include <vector>

#include "multihead/model_files.hpp"

namespace multihead::testing {

// In ascending order of bytes: a byte's own code where it can be seen, else the next one from U+0100 on.
inline std::vector<std::string> byte_letters() {
  std::vector<std::string> letters;
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < 0x100; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const unsigned code = itself ? byte : next++;
    std::string letter;
    if (code < 0x80)
      letter = static_cast<char>(code);
    else
      letter = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    letters.push_back(letter);
  }
  return letters;
}

inline BytePairModel bytes_alone() {
  BytePairModel model;
  model.vocabulary = byte_letters();
  return model;
}

}  // namespace multihead::testing

// SPDX-License-Identifier: Apache-2.0
// What a handle of an encoder holds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "multihead/encoder.hpp"
#include "multihead/multihead.h"
#include "multihead/wordpiece.hpp"

struct mh_encoder {
  multihead::Encoder encoder;
  std::optional<multihead::WordPiece> tokenizer;
  std::optional<multihead::SentenceEncoder> sentences;
  multihead::ErrorCode why_code = {};  // why one of them is missing
  std::string why;
  std::vector<std::string> words;  // the tokens' texts by id, ended by 0
};

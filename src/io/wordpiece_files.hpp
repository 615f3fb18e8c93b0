// SPDX-License-Identifier: Apache-2.0
// The two forms of a WordPiece tokenizer's file, from their text.
#pragma once

#include <cstddef>
#include <span>

#include "io/file.hpp"
#include "multihead/model_files.hpp"

namespace multihead::io {

// tokenizer.json. Throws unsupported for another model, normalizer, pre-tokenizer or post-processor than BERT's.
WordPieceModel parse_tokenizer(std::span<const std::byte> text, const Origin& origin);
// vocab.txt, with the names of special tokens that BERT's have.
WordPieceModel parse_lines(std::span<const std::byte> text, const Origin& origin);

}  // namespace multihead::io

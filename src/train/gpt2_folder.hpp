// SPDX-License-Identifier: Apache-2.0
// A decoder that learned here as a folder of GPT-2, which others open too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "multihead/training.hpp"
#include "multihead/transformer.hpp"

namespace multihead {

// model.safetensors with GPT-2's names and metadata's facts, config.json, generation_config.json and tokenizer.json,
// into a folder that is there. end: the token before and behind a text. Throws file_missing; bad_option for a model
// that is none of GPT-2: a decoder of one table, with learned positions, feed-forward parts of gelu_tanh, a final norm
// and tied logits.
void save_gpt2(const std::filesystem::path& folder, const Transformer<float>& model, std::string_view tokenizer,
               std::int64_t end, const Metadata& metadata);
// The model.safetensors of such a folder. Throws as load_checkpoint does.
void load_gpt2(const std::filesystem::path& path, Transformer<float>& model);

}  // namespace multihead

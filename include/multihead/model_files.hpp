// SPDX-License-Identifier: Apache-2.0
// The small files beside a model's weights, as Hugging Face and sentence-transformers write them: config.json, what a
// sentence's vector is made of, and the tokenizer's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "multihead/rotary.hpp"

namespace multihead {

// config.json. Families name the same thing differently (docs/formats.md has the names); what a file does not say is
// left out, unless a rule below gives it.
struct ModelConfig {
  std::string model_type;                  // "bert"; required
  std::vector<std::string> architectures;  // "BertModel"
  std::int64_t model_dim = 0;              // required, as are layers and heads
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  // heads unless given
  std::int64_t head_dim = 0;  // model_dim / heads unless given, which must then be whole
  std::optional<std::int64_t> intermediate_dim, vocab_size, max_positions, token_types, pad_token_id, sliding_window;
  std::string activation;                            // hidden_act and its kin, as written
  std::optional<double> norm_eps;                    // layer_norm_eps, layer_norm_epsilon or rms_norm_eps
  std::string position_embedding_type = "absolute";  // BERT's
  std::optional<bool> attention_bias, tie_word_embeddings, use_sliding_window;
  std::optional<bool> is_decoder;               // true: the attention of a BERT is causal
  std::optional<double> softcap;                // attn_logit_softcapping
  std::optional<double> query_pre_attn_scalar;  // Gemma's: the scale is its inverse square root
  std::optional<double> rope_theta, partial_rotary_factor;
  std::optional<RotaryScaling> rope_scaling;  // type as written, even where it is none that rotary_frequencies knows
  std::vector<std::string> layer_types;       // one a layer, where given
  std::optional<std::int64_t> relative_buckets, relative_max_distance;  // T5's
  std::string dtype;                                                    // torch_dtype or dtype, as written
  // Of decoders. eos_token_id may be one id or several.
  std::optional<std::int64_t> bos_token_id;
  std::vector<std::int64_t> eos_token_ids;
  std::optional<bool> mlp_bias;                                             // Llama's
  std::optional<bool> scale_attn_weights, scale_attn_by_inverse_layer_idx;  // GPT-2's
  std::optional<bool> add_cross_attention;
};

// Throws file_missing; file_malformed: not strict JSON (duplicate keys, depth beyond 64, anything after it), a field of
// another kind than its own, a number out of range, a required field that is absent; unsupported: rope_parameters by
// kind of layer. The sentence names file, field and rule. null counts as absent. Fields that are not listed are not
// read.
ModelConfig read_config(const std::filesystem::path& path);
ModelConfig parse_config(std::span<const std::byte> text, const std::string& name);

// The ids that end a text: eos_token_id of generation_config.json where that file is and has it, else of config.json;
// none where neither says. Throws as read_config.
std::vector<std::int64_t> read_eos_token_ids(const std::filesystem::path& folder);

// modules.json, its pooling's config.json, sentence_bert_config.json and config_sentence_transformers.json of a
// sentence-transformers folder. All absent:
// the defaults; a Pooling in modules.json has its config.json, or file_missing is thrown; unsupported for a Transformer
// in a folder of its own. Else as read_config.
struct SentenceConfig {
  std::optional<std::int64_t> max_tokens;  // max_seq_length, [CLS] and [SEP] counted
  std::vector<std::string> modules;        // the last words of their types: "Transformer", "Pooling", "Normalize"
  std::vector<std::string> pooling;        // the pooling modes that are on: "mean_tokens", "cls_token" ..
  bool lowercase = false;                  // do_lower_case: texts are lowercased before the tokenizer has them
  std::string prompt;                      // of default_prompt_name: it stands before each text
};
SentenceConfig read_sentence_config(const std::filesystem::path& folder);

// A token that is found in the text before anything else is done to it (tokenizer.json's added_tokens).
struct AddedToken {
  std::string content;
  std::int64_t id = 0;
  bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = false;
};

// What a WordPiece tokenizer is made of.
struct WordPieceModel {
  std::vector<std::string> vocabulary;  // by id; an id without a token is empty
  std::string unknown = "[UNK]", classify = "[CLS]", separate = "[SEP]";
  std::string continuing = "##";   // what begins a token inside a word
  std::int64_t max_letters = 100;  // a longer word is unknown
  bool clean_text = true, chinese_chars = true, lowercase = true;
  std::optional<bool> strip_accents;  // as lowercase unless given
  std::vector<AddedToken> added;      // in ascending order of ids; those that the vocabulary lacks have the next ones
};

// From tokenizer.json where the folder has one, else from vocab.txt (a token a line, its id the line's number from 0)
// and, where there is one, tokenizer_config.json. The truncation and padding of tokenizer.json are not read: they say
// how one call was made. Throws file_missing when there is neither; unsupported, by name, for another model,
// normalizer, pre-tokenizer, post-processor or tokenizer_class than BERT's; file_malformed for everything else, with
// file, field or line, and rule.
WordPieceModel read_wordpiece(const std::filesystem::path& folder);
WordPieceModel parse_tokenizer_json(std::span<const std::byte> text, const std::string& name);
WordPieceModel parse_vocabulary(std::span<const std::byte> text, const std::string& name);

// How a byte-level tokenizer cuts a text into words, which no token crosses: not at all, or by a pattern that is known.
enum class WordPattern { none, gpt2, llama3 };

// What a byte-level tokenizer by pairs is made of (Sennrich et al. 2016; Radford et al. 2019).
struct BytePairModel {
  struct Merge {
    std::int64_t first, second, merged;  // ids of two tokens side by side, and of the one they become
  };
  std::vector<std::string> vocabulary;  // by id, each byte written as a letter of its own; an id without one is empty
  std::vector<Merge> merges;            // in the order in which they are made
  WordPattern pattern = WordPattern::gpt2;
  bool prefix_space = false;                // a space is put before a text that does not begin with one
  bool whole_words = false;                 // a word that is a token is that token, whatever merges make of it
  std::vector<std::int64_t> before, after;  // ids that are put around a text
  std::vector<AddedToken> added;            // in ascending order of ids; those that the vocabulary lacks have the next
};

// From tokenizer.json of a model BPE with a ByteLevel pre-tokenizer, alone or after a Split by a pattern that is known.
// Throws as read_wordpiece does: unsupported, by name, for any normalizer, another pre-tokenizer, pattern,
// post-processor or decoder, for dropout, byte_fallback, and marks inside or at the end of words.
BytePairModel read_byte_pair(const std::filesystem::path& folder);
BytePairModel parse_byte_pair_json(std::span<const std::byte> text, const std::string& name);

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// Every rule of a call of Decoder, checked before anything is written.
#include "models/decoder_call.hpp"

#include <array>
#include <string>

namespace multihead {

namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

[[noreturn]] void refuse(ErrorCode code, const std::string& rule) { fail(kDecoder, code, rule); }

void check_between(const char* what, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high)
    refuse(ErrorCode::bad_option,
           std::string(what) + " is " + text(value) + "; it must be " + text(low) + " to " + text(high));
}

template <class View>
bool is_given(const View& view) {
  return view.data() || view.extents() != decltype(view.extents()){};
}

}  // namespace

void DecoderCall::check_cache() const {
  const KvCacheSpec& spec = cache.spec();
  const auto equal = [](const char* what, std::int64_t is, std::int64_t must) {
    if (is != must)
      refuse(ErrorCode::shape_mismatch,
             "the cache has " + std::string(what) + " " + text(is) + "; of this decoder it must be " + text(must));
  };
  equal("layers", spec.layers, decoder.e.layers);
  equal("kv_heads", spec.kv_heads, decoder.e.kv_heads);
  equal("head_dim", spec.head_dim, decoder.e.head_dim);
  equal("value_dim", spec.value_dim.value_or(spec.head_dim), decoder.e.head_dim);
  if (spec.window) refuse(ErrorCode::bad_option, "the cache has a window; a decoder's keys must all be seen");
}

void DecoderCall::place_tokens() {
  starts.assign(input.cu_seqlens.begin(), input.cu_seqlens.end());
  if (starts.empty()) starts = {0, tokens()};
  if (starts.size() != input.sequences.size() + 1)
    refuse(ErrorCode::shape_mismatch, "sequences has " + text(static_cast<std::int64_t>(input.sequences.size())) +
                                          " elements, cu_seqlens tells of " +
                                          text(static_cast<std::int64_t>(starts.size()) - 1));
  positions.reserve(input.ids.size());
  for (std::size_t s = 0; s < input.sequences.size(); ++s) {
    const std::int64_t count = starts[s + 1] - starts[s], length = cache.length(input.sequences[s]);
    if (count == 0) refuse(ErrorCode::bad_option, "a sequence has no token; each must have one");
    if (length + count > decoder.e.max_tokens)
      refuse(ErrorCode::bad_option, "a sequence of " + text(length) + " tokens gets " + text(count) +
                                        " more; it must have at most " + text(decoder.e.max_tokens));
    for (std::int64_t layer = 1; layer < decoder.e.layers; ++layer)
      if (cache.length(input.sequences[s], layer) != length)
        refuse(ErrorCode::bad_option, "a sequence has " + text(length) + " positions in layer 0, and " +
                                          text(cache.length(input.sequences[s], layer)) + " in layer " + text(layer) +
                                          "; they must be equal");
    for (std::int64_t i = 0; i < count; ++i) positions.push_back(length + i);
  }
}

void DecoderCall::check_outputs() const {
  const std::int64_t sequences = static_cast<std::int64_t>(input.sequences.size());
  std::vector<Written> outputs;
  const auto take = [&](Written view, std::span<const std::int64_t> wanted) {
    check_written(kDecoder, view, wanted);
    check_rows(kDecoder, view);
    check_apart(kDecoder, view, "ids", input.ids.data(), input.ids.data() + input.ids.size());
    for (const Written& other : outputs) check_apart(kDecoder, view, other.name, other.begin, other.end);
    outputs.push_back(view);
  };
  const std::array last{sequences, decoder.e.vocab_size}, every{tokens(), decoder.e.vocab_size};
  const std::array states{decoder.e.layers + 1, tokens(), decoder.e.model_dim};
  if (is_given(logits)) take(Written("logits", logits), last);
  if (is_given(requests.every_logit)) take(Written("every_logit", requests.every_logit), every);
  if (is_given(requests.hidden_states)) take(Written("hidden_states", requests.hidden_states), states);
}

void DecoderCall::check() {
  if (!input.ids.data() && !input.ids.empty())
    refuse(ErrorCode::shape_mismatch, "ids is null; it must point to its elements");
  check_starts(kDecoder, input.cu_seqlens, tokens());
  check_cache();
  if (input.ids.empty() && input.sequences.empty()) return;
  place_tokens();
  for (std::int64_t id : input.ids) check_between("an id", id, 0, decoder.e.vocab_size - 1);
  check_between("threads", options.threads, 1, 1 << 16);
  chosen_target(options.target);
  check_outputs();
}

void DecoderCall::undo() noexcept {
  for (std::size_t s = 0; s < input.sequences.size(); ++s) try {
      cache.truncate(input.sequences[s], positions[static_cast<std::size_t>(starts[s])]);
    } catch (const Error&) {  // the sequence is none of the cache's: nothing was appended
    }
}

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// mh_encoder on texts: tokens and vectors.
#include <cstring>

#include "encoder.hpp"
#include "options.hpp"

namespace multihead::c {

namespace {

constexpr const char* kTokens = "mh_encoder_tokens";
constexpr const char* kEncode = "SentenceEncoder";
constexpr std::int64_t kFarthest = std::int64_t{1} << 60;  // elements between the first vector and the last

void check_room(std::size_t capacity, std::size_t count, bool asked) {
  if (asked && capacity < count)
    shape_mismatch(kTokens, "capacity is " + std::to_string(capacity) + ", the text has " + std::to_string(count) +
                                " tokens; it must be at least that");
}

// (count, model_dim), rows apart.
void check_vectors(MatrixView<float> vectors, std::int64_t count, std::int64_t model_dim) {
  const auto refuse = [](const std::string& rule) { shape_mismatch(kEncode, "vectors has " + rule); };
  const auto two = [](std::int64_t a, std::int64_t b) { return std::to_string(a) + " and " + std::to_string(b); };
  if (vectors.extent(0) != count || vectors.extent(1) != model_dim)
    refuse("extents " + two(vectors.extent(0), vectors.extent(1)) + "; they must be " + two(count, model_dim));
  const bool in_row = model_dim <= 1 || vectors.stride(1) == 1;
  const bool rows_apart = count <= 1 || (vectors.stride(0) >= model_dim && vectors.stride(0) <= kFarthest / count);
  if (!in_row || !rows_apart)
    refuse("strides " + two(vectors.stride(0), vectors.stride(1)) + "; they must be at least model_dim, which is " +
           std::to_string(model_dim) + ", and 1");
}

}  // namespace

}  // namespace multihead::c

using namespace multihead::c;

mh_status mh_encoder_tokens(const mh_encoder* encoder, const char* text, size_t length, int64_t* ids, int64_t* begins,
                            int64_t* ends, size_t capacity, size_t* count) {
  return guarded([&] {
    wanted(kTokens, "encoder", encoder);
    if (length > 0) wanted(kTokens, "text", text);
    wanted(kTokens, "count", count);
    if (!encoder->tokenizer) throw multihead::Error(encoder->why_code, encoder->why);
    const std::vector<multihead::Token> tokens = encoder->tokenizer->encode(std::string_view(text, length));
    *count = tokens.size();
    check_room(capacity, tokens.size(), ids || begins || ends || capacity > 0);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (ids) ids[i] = tokens[i].id;
      if (begins) begins[i] = static_cast<int64_t>(tokens[i].begin);
      if (ends) ends[i] = static_cast<int64_t>(tokens[i].end);
    }
  });
}

const char* mh_encoder_token_text(const mh_encoder* encoder, int64_t id) {
  if (!encoder || id < 0 || id >= static_cast<int64_t>(encoder->words.size())) return nullptr;
  return encoder->words[static_cast<std::size_t>(id)].c_str();
}

mh_status mh_encoder_encode(const mh_encoder* encoder, const char* const* texts, size_t count, const mh_tensor* vectors,
                            const mh_run_options* run) {
  return guarded([&] {
    wanted(kEncode, "encoder", encoder);
    if (count > 0) wanted(kEncode, "texts", texts);
    if (!encoder->sentences) throw multihead::Error(encoder->why_code, encoder->why);
    std::vector<std::string> sentences(count);
    for (std::size_t i = 0; i < count; ++i) {
      if (!texts[i]) bad_argument(kEncode, "text " + std::to_string(i) + " is NULL; it must be given");
      sentences[i] = texts[i];
    }
    const auto to = view<float, 2>({kEncode, "vectors"}, vectors);
    check_vectors(to, static_cast<std::int64_t>(count), encoder->encoder.extents().model_dim);
    const multihead::Matrix<float> found = encoder->sentences->encode(sentences, run_options(kEncode, run));
    for (std::int64_t i = 0; i < found.rows(); ++i)
      for (std::int64_t c = 0; c < found.columns(); ++c) to(i, c) = found(i, c);
  });
}

// SPDX-License-Identifier: Apache-2.0
// mh_encoder: opened from a folder, and run on ids.
#include "encoder.hpp"

#include <array>
#include <memory>

#include "models.hpp"
#include "options.hpp"
#include "statistics.hpp"

namespace multihead::c {

namespace {

constexpr const char* kOpen = "mh_encoder_open";
constexpr const char* kOpenWith = "mh_encoder_open_with";
constexpr const char* kExtents = "mh_encoder_get_extents";
constexpr const char* kForward = "Encoder";

// What a folder has beside its encoder; what it lacks is kept as a reason.
std::unique_ptr<mh_encoder> opened(const std::filesystem::path& folder, const EncoderOptions& options) {
  std::unique_ptr<mh_encoder> made;
  try {
    SentenceEncoder sentences(folder, options);
    made.reset(new mh_encoder{sentences.encoder(), sentences.tokenizer(), sentences, {}, {}, {}});
  } catch (const Error& error) {  // of the encoder itself: thrown again here
    made.reset(new mh_encoder{Encoder(folder, options), {}, {}, error.code(), error.what(), {}});
    try {
      made->tokenizer.emplace(read_wordpiece(folder));
    } catch (const Error&) {  // the reason is kept already
      made->tokenizer.reset();
    }
  }
  if (!made->tokenizer) return made;
  made->words.reserve(static_cast<std::size_t>(made->tokenizer->size()));
  for (std::int64_t id = 0; id < made->tokenizer->size(); ++id) made->words.emplace_back(made->tokenizer->text(id));
  return made;
}

EncoderOptions options_of(const mh_encoder_options* options) {
  const mh_encoder_options read = read_struct(kOpenWith, options);
  check_reserved(kOpenWith, "mh_encoder_options.reserved", read.reserved);
  return {.precision = element_type({kOpenWith, "precision"}, read.precision),
          .products = element_type({kOpenWith, "products"}, read.products)};
}

// How many requests there are: one a layer, or none.
std::size_t count_of(const std::string& name, bool given, std::size_t count, std::int64_t layers) {
  if (given != (count != 0))
    bad_argument(kForward, name + " is " + (given ? "given" : "NULL") + " and " + name + "_count is " +
                               std::to_string(count) + "; they must come together");
  if (count != 0 && count != static_cast<std::size_t>(layers))
    shape_mismatch(kForward, name + "_count is " + std::to_string(count) + ", layers is " + std::to_string(layers) +
                                 "; they must be equal");
  return count;
}

std::vector<WeightsRequest<float>> weights_of(const mh_encoder_call& read, std::int64_t layers) {
  std::vector<WeightsRequest<float>> requests(count_of("weights", read.weights, read.weights_count, layers));
  for (std::size_t i = 0; i < requests.size(); ++i) requests[i] = weights_request<float>(kForward, read.weights[i]);
  return requests;
}

std::vector<StatisticsRequest<float>> statistics_of(const mh_encoder_call& read, std::int64_t layers) {
  std::vector<StatisticsRequest<float>> requests(
      count_of("statistics", read.statistics, read.statistics_count, layers));
  for (std::size_t i = 0; i < requests.size(); ++i)
    requests[i] = statistics_request<float>(kForward, read.statistics[i]);
  return requests;
}

}  // namespace

bool built_with_models() noexcept { return true; }

}  // namespace multihead::c

using namespace multihead::c;

mh_status mh_encoder_open(const char* folder, mh_encoder** encoder) {
  return guarded([&] {
    wanted(kOpen, "folder", folder);
    wanted(kOpen, "encoder", encoder);
    *encoder = opened(folder, {}).release();
  });
}

mh_status mh_encoder_open_with(const char* folder, const mh_encoder_options* options, mh_encoder** encoder) {
  return guarded([&] {
    wanted(kOpenWith, "folder", folder);
    wanted(kOpenWith, "encoder", encoder);
    *encoder = opened(folder, options_of(options)).release();
  });
}

void mh_encoder_destroy(mh_encoder* encoder) { delete encoder; }

mh_status mh_encoder_get_extents(const mh_encoder* encoder, mh_encoder_extents* extents) {
  return guarded([&] {
    wanted(kExtents, "encoder", encoder);
    wanted(kExtents, "extents", extents);
    const multihead::EncoderExtents& e = encoder->encoder.extents();
    mh_encoder_extents answer = defaults<mh_encoder_extents>();
    answer.texts = encoder->sentences ? 1 : 0;
    answer.layers = e.layers, answer.heads = e.heads, answer.head_dim = e.head_dim;
    answer.model_dim = e.model_dim, answer.intermediate_dim = e.intermediate_dim;
    answer.vocab_size = e.vocab_size, answer.token_types = e.token_types, answer.max_tokens = e.max_tokens;
    write_struct(kExtents, answer, extents);
  });
}

mh_status mh_encoder_forward(const mh_encoder* encoder, const mh_encoder_call* call, const mh_tensor* output,
                             const mh_run_options* run) {
  return guarded([&] {
    wanted(kForward, "encoder", encoder);
    wanted(kForward, "call", call);
    const mh_encoder_call read = read_struct(kForward, call);
    check_reserved(kForward, "mh_encoder_call.reserved", read.reserved);
    if (!is_given(read.ids)) missing({kForward, "ids"});
    const auto ids = list<std::int64_t>({kForward, "ids"}, read.ids);
    const Role types{kForward, "token_types"};
    const multihead::EncoderInput input{
        .ids = ids,
        .cu_seqlens = filled_list<std::int64_t>({kForward, "cu_seqlens"}, read.cu_seqlens),
        .token_types = ids.empty() ? list<std::int64_t>(types, read.token_types)
                                   : filled_list<std::int64_t>(types, read.token_types),
        .gates = optional_view<const double, 2>({kForward, "gates"}, read.gates)};
    const std::int64_t layers = encoder->encoder.extents().layers;
    const auto weights = weights_of(read, layers);
    const auto statistics = statistics_of(read, layers);
    const multihead::EncoderRequests requests{
        .hidden_states = optional_view<float, 3>({kForward, "hidden_states"}, read.hidden_states),
        .weights = weights,
        .statistics = statistics,
        .norms = optional_view<float, 3>({kForward, "norms"}, read.norms)};
    encoder->encoder.forward(input, view<float, 2>({kForward, "output"}, output), run_options(kForward, run), requests);
  });
}

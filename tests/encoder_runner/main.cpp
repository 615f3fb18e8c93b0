// SPDX-License-Identifier: Apache-2.0
// Runs the encoder of a folder on the tokens of a case, for tests that compare hidden states and weights.
//
//   encoder_runner MODEL CASE [PRODUCTS]      float32 unless given, or bfloat16; CASE/ids.npy, starts.npy, types.npy
//   (int64) in, states.npy, weights.npy (float32) out
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string_view>
#include <vector>

#include "multihead/encoder.hpp"
#include "multihead/io.hpp"

namespace multihead {
namespace {

void run(const std::filesystem::path& model, const std::filesystem::path& folder, Type products) {
  const Encoder encoder(model, {.products = products});
  const Array ids = read_npy(folder / "ids.npy"), starts = read_npy(folder / "starts.npy");
  const Array types = read_npy(folder / "types.npy");
  const EncoderExtents& e = encoder.extents();
  const std::int64_t tokens = ids.count();
  std::vector<float> output(static_cast<std::size_t>(tokens * e.model_dim));
  std::vector<float> states(static_cast<std::size_t>((e.layers + 1) * tokens * e.model_dim));
  std::vector<float> weights(static_cast<std::size_t>(e.layers * e.heads * tokens * tokens));
  std::vector<WeightsRequest<float>> requests(static_cast<std::size_t>(e.layers));
  for (std::int64_t layer = 0; layer < e.layers; ++layer)
    requests[static_cast<std::size_t>(layer)].per_head = {weights.data() + layer * e.heads * tokens * tokens,
                                                          {1, e.heads, tokens, tokens}};
  encoder.forward({.ids = ids.values<std::int64_t>(),
                   .cu_seqlens = starts.values<std::int64_t>(),
                   .token_types = types.values<std::int64_t>()},
                  MatrixView<float>(output.data(), {tokens, e.model_dim}), {.threads = 2},
                  {.hidden_states = {states.data(), {e.layers + 1, tokens, e.model_dim}}, .weights = requests});
  const std::int64_t states_shape[] = {e.layers + 1, tokens, e.model_dim};
  const std::int64_t weights_shape[] = {e.layers, e.heads, tokens, tokens};
  write_npy(folder / "states.npy", std::span<const float>(states), states_shape);
  write_npy(folder / "weights.npy", std::span<const float>(weights), weights_shape);
  for (const std::string& name : encoder.unused_tensors()) std::printf("unused %s\n", name.c_str());
}

}  // namespace
}  // namespace multihead

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "encoder_runner MODEL CASE [PRODUCTS]\n");
    return 2;
  }
  try {
    const bool narrow = argc == 4 && std::string_view(argv[3]) == "bfloat16";
    multihead::run(argv[1], argv[2], narrow ? multihead::Type::bfloat16 : multihead::Type::float32);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

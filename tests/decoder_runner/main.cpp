// SPDX-License-Identifier: Apache-2.0
// Runs the decoder of a folder on the tokens of a case, for tests that compare logits and greedy texts.
//
//   decoder_runner MODEL CASE NEW [PRODUCTS]      float32 unless given, or bfloat16; CASE/ids.npy, starts.npy (int64)
//   in; logits.npy (float32, after each token) and new.npy (float64, sequences x NEW: what follows greedily) out
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "byte_letters.hpp"
#include "multihead/generate.hpp"
#include "multihead/io.hpp"

namespace multihead {
namespace {

using Ids = std::span<const std::int64_t>;

// After each token; chunk: so many tokens of each sequence in a call.
std::vector<float> logits_of(const Decoder& decoder, Ids ids, Ids starts, std::int64_t chunk) {
  const std::int64_t words = decoder.extents().vocab_size;
  std::vector<float> all(ids.size() * static_cast<std::size_t>(words));
  KvCache cache(decoder.cache_spec(static_cast<std::int64_t>(128 * starts.size())));
  std::vector<KvSequence> sequences;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) sequences.push_back(cache.add());
  for (std::int64_t done = 0; done < static_cast<std::int64_t>(ids.size()); done += chunk) {
    std::vector<std::int64_t> fed, cuts{0}, places;
    std::vector<KvSequence> who;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const std::int64_t end = std::min(starts[s + 1], starts[s] + done + chunk);
      if (starts[s] + done >= end) continue;
      for (std::int64_t t = starts[s] + done; t < end; ++t)
        fed.push_back(ids[static_cast<std::size_t>(t)]), places.push_back(t);
      cuts.push_back(static_cast<std::int64_t>(fed.size())), who.push_back(sequences[s]);
    }
    if (fed.empty()) break;
    std::vector<float> some(fed.size() * static_cast<std::size_t>(words));
    decoder.forward({.ids = fed, .cu_seqlens = cuts, .sequences = who}, cache, {}, {.threads = 2},
                    {.every_logit = {some.data(), {static_cast<std::int64_t>(fed.size()), words}}});
    for (std::size_t t = 0; t < places.size(); ++t)
      std::copy_n(some.begin() + static_cast<std::ptrdiff_t>(t) * words, words, all.begin() + places[t] * words);
  }
  return all;
}

void run(const std::filesystem::path& model, const std::filesystem::path& folder, std::int64_t count, Type products) {
  const Decoder decoder(model, {.products = products});
  const Array ids = read_npy(folder / "ids.npy"), starts = read_npy(folder / "starts.npy");
  const Ids all = ids.values<std::int64_t>(), cuts = starts.values<std::int64_t>();
  const std::vector<float> logits = logits_of(decoder, all, cuts, 1 << 20);
  for (std::int64_t chunk : {1, 3, 32}) {
    const std::vector<float> other = logits_of(decoder, all, cuts, chunk);
    if (std::memcmp(logits.data(), other.data(), logits.size() * sizeof(float)) != 0)
      throw std::runtime_error("in chunks of " + std::to_string(chunk) + " tokens logits have other bits");
  }
  const std::int64_t shape[] = {static_cast<std::int64_t>(all.size()), decoder.extents().vocab_size};
  write_npy(folder / "logits.npy", std::span<const float>(logits), shape);
  Generator generator(decoder, BytePair(testing::bytes_alone()), {.positions = 1 << 14, .prompt_tokens = 5});
  const std::size_t sequences = cuts.size() - 1;
  for (std::size_t s = 0; s < sequences; ++s)
    generator.add(all.subspan(static_cast<std::size_t>(cuts[s]), static_cast<std::size_t>(cuts[s + 1] - cuts[s])),
                  {.max_tokens = count});
  std::vector<double> next(sequences * static_cast<std::size_t>(count), -1);
  std::vector<std::size_t> spoken(sequences);
  while (!generator.done())
    for (const Generated& token : generator.step()) {
      const auto s = static_cast<std::size_t>(token.request);
      next[s * static_cast<std::size_t>(count) + spoken[s]++] = static_cast<double>(token.id);
    }
  const std::int64_t next_shape[] = {static_cast<std::int64_t>(sequences), count};
  write_npy(folder / "new.npy", std::span<const double>(next), next_shape);
  for (const std::string& name : decoder.unused_tensors()) std::printf("unused %s\n", name.c_str());
}

}  // namespace
}  // namespace multihead

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::fprintf(stderr, "decoder_runner MODEL CASE NEW [PRODUCTS]\n");
    return 2;
  }
  try {
    const bool narrow = argc == 5 && std::string_view(argv[4]) == "bfloat16";
    multihead::run(argv[1], argv[2], std::atoll(argv[3]),
                   narrow ? multihead::Type::bfloat16 : multihead::Type::float32);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

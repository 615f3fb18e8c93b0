// SPDX-License-Identifier: Apache-2.0
// Decoder: a token's logits have the same bits however its sequence is cut into calls, whatever stands beside it.
#include "multihead/decoder.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "models/tiny_decoder.hpp"

namespace multihead::testing {
namespace {

using Ids = std::vector<std::int64_t>;

Ids drawn(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  Ids ids(count);
  for (std::int64_t& id : ids) id = static_cast<std::int64_t>(random() % 270);
  return ids;
}

// The logits after each token of a sequence, fed in one call by itself.
std::vector<float> alone(const Decoder& decoder, const Ids& ids, KvStorage storage, const LayerOptions& options = {}) {
  KvCache cache(decoder.cache_spec(512, storage));
  const std::vector<KvSequence> sequences{cache.add()};
  const auto count = static_cast<std::int64_t>(ids.size());
  std::vector<float> logits(ids.size() * 270), last(270);
  decoder.forward({.ids = ids, .sequences = sequences}, cache, {last.data(), {1, 270}}, options,
                  {.every_logit = {logits.data(), {count, 270}}});
  EXPECT_EQ(std::memcmp(last.data(), logits.data() + (count - 1) * 270, 270 * sizeof(float)), 0);
  return logits;
}

struct Fed {
  Ids ids;
  std::size_t done = 0;
  KvSequence sequence = {};
  std::vector<float> wanted;
};

// Random calls: some of the sequences, a random number of tokens each, until all are fed.
void feed_at_random(const Decoder& decoder, KvStorage storage, unsigned seed) {
  std::mt19937 random(seed);
  KvCache cache(decoder.cache_spec(4096, storage));
  std::vector<Fed> all;
  for (std::size_t count : {1, 33, 150, 70, 128}) {
    const Ids ids = drawn(count, static_cast<unsigned>(count));
    all.push_back({ids, 0, cache.add(), alone(decoder, ids, storage)});
  }
  while (std::any_of(all.begin(), all.end(), [](const Fed& fed) { return fed.done < fed.ids.size(); })) {
    Ids ids, starts{0};
    std::vector<KvSequence> sequences;
    std::vector<Fed*> who;
    std::shuffle(all.begin(), all.end(), random);
    for (Fed& fed : all) {
      const std::size_t left = fed.ids.size() - fed.done;
      if (left == 0 || random() % 3 == 0) continue;
      const std::size_t count = std::min<std::size_t>(left, random() % 4 == 0 ? 1 + random() % 90 : 1);
      const auto from = fed.ids.begin() + static_cast<std::ptrdiff_t>(fed.done);
      ids.insert(ids.end(), from, from + static_cast<std::ptrdiff_t>(count));
      fed.done += count;
      starts.push_back(static_cast<std::int64_t>(ids.size()));
      sequences.push_back(fed.sequence), who.push_back(&fed);
    }
    if (who.empty()) continue;
    std::vector<float> last(who.size() * 270);
    LayerOptions options;
    options.threads = 1 + static_cast<int>(random() % 3);
    decoder.forward({.ids = ids, .cu_seqlens = starts, .sequences = sequences}, cache,
                    {last.data(), {static_cast<std::int64_t>(who.size()), 270}}, options);
    for (std::size_t row = 0; row < who.size(); ++row)
      ASSERT_EQ(std::memcmp(last.data() + row * 270, who[row]->wanted.data() + (who[row]->done - 1) * 270,
                            270 * sizeof(float)),
                0)
          << "after " << who[row]->done << " of " << who[row]->ids.size() << " tokens";
  }
}

class DecoderBits : public ::testing::TestWithParam<std::tuple<const char*, KvStorage, Type>> {};

TEST_P(DecoderBits, DoNotDependOnTheCalls) {
  const auto [type, storage, products] = GetParam();
  const Decoder decoder = TinyDecoder(type).decoder({.products = products});
  for (unsigned seed = 0; seed < 3; ++seed) feed_at_random(decoder, storage, seed);
}

INSTANTIATE_TEST_SUITE_P(All, DecoderBits,
                         ::testing::Combine(::testing::Values("gpt2", "llama"),
                                            ::testing::Values(KvStorage::float32, KvStorage::bfloat16,
                                                              KvStorage::float16, KvStorage::int8),
                                            ::testing::Values(Type::float32, Type::bfloat16)));

TEST(Decoder, StorageIsARounding) {
  for (const char* type : {"gpt2", "llama"}) {
    const Decoder decoder = TinyDecoder(type).decoder();
    const Ids ids = drawn(60, 3);
    const std::vector<float> exact = alone(decoder, ids, KvStorage::float32);
    for (const auto& [storage, bound] : {std::pair{KvStorage::float16, 0.02f}, {KvStorage::bfloat16, 0.15f}}) {
      const std::vector<float> other = alone(decoder, ids, storage);
      float away = 0, largest = 0;
      for (std::size_t i = 0; i < exact.size(); ++i) {
        away = std::max(away, std::abs(other[i] - exact[i]));
        largest = std::max(largest, std::abs(exact[i]));
      }
      EXPECT_GT(away, 0);
      EXPECT_LT(away, bound * largest);
    }
  }
}

TEST(Decoder, TheTypeOfWeights) {
  TinyDecoder model("llama");
  const Ids ids = drawn(20, 4);
  const TemporaryFolder folder;
  model.write(folder);
  const std::vector<float> rounded =
      alone(Decoder(folder.path(), {.precision = Type::bfloat16}), ids, KvStorage::float32);
  for (auto& [name, tensor] : model.tensors)
    for (float& value : tensor.values) value = static_cast<float>(BFloat16(value));
  EXPECT_EQ(rounded, alone(model.decoder(), ids, KvStorage::float32));
}

TEST(Decoder, HiddenStatesOnRequest) {
  const Decoder decoder = TinyDecoder("gpt2").decoder();
  const Ids ids = drawn(9, 5);
  KvCache cache(decoder.cache_spec(128));
  const std::vector<KvSequence> sequences{cache.add()};
  std::vector<float> states(3 * 9 * 24), logits(270);
  decoder.forward({.ids = ids, .sequences = sequences}, cache, {logits.data(), {1, 270}}, {},
                  {.hidden_states = {states.data(), {3, 9, 24}}});
  const std::vector<float> wanted = alone(decoder, ids, KvStorage::float32);
  EXPECT_EQ(std::memcmp(logits.data(), wanted.data() + 8 * 270, 270 * sizeof(float)), 0);
  // The embeddings: word + position.
  const TinyDecoder model("gpt2");
  for (std::int64_t t = 0; t < 9; ++t)
    for (std::int64_t c = 0; c < 24; ++c)
      EXPECT_EQ(
          states[static_cast<std::size_t>(t * 24 + c)],
          model.tensors.at("wte.weight").values[static_cast<std::size_t>(ids[static_cast<std::size_t>(t)] * 24 + c)] +
              model.tensors.at("wpe.weight").values[static_cast<std::size_t>(t * 24 + c)]);
}

TEST(Decoder, NothingToDo) {
  const Decoder decoder = TinyDecoder("gpt2").decoder();
  KvCache cache(decoder.cache_spec(128));
  EXPECT_NO_THROW(decoder.forward({}, cache, {}));
}

}  // namespace
}  // namespace multihead::testing

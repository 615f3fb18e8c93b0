// SPDX-License-Identifier: Apache-2.0
// Statistics of an encoder's heads against its own weights, sequence by sequence, and the rules of asking for them.
#include <gtest/gtest.h>

#include <memory>

#include "models/tiny_model.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

// Both distributions of one layer, or those of one head in float64.
template <class S>
struct Asked {
  std::vector<std::vector<S>> kept;
  std::vector<std::vector<std::int64_t>> kept_keys;
  StatisticsRequest<S> request;
  std::vector<std::int64_t> offsets{-1, 0, 3};
  std::vector<std::uint32_t> classes;
  std::vector<std::int64_t> tokens;

  Asked(std::int64_t h, std::int64_t n, bool map) {
    const auto room = [&](std::int64_t count) {
      return kept.emplace_back(static_cast<std::size_t>(count), S(77)).data();
    };
    request.offsets = offsets, request.bin = 16;
    for (std::int64_t t = 0; t < n; ++t) classes.push_back(static_cast<std::uint32_t>(t) % 4), tokens.push_back(t % 5);
    request.key_classes = {classes.data(), {1, n}};
    request.q_tokens = request.kv_tokens = {tokens.data(), {1, n}};
    for (RowStatistics<S>* to : {&request.plain, &request.norm_weighted}) {
      for (View3<S>* view : {&to->visible, &to->entropy, &to->sum_squares, &to->distance, &to->duplicate_mass,
                             &to->induction_mass, &to->received})
        *view = {room(h * n), {1, h, n}};
      to->offset_mass = {room(h * n * 3), {1, h, n, 3}};
      to->class_mass = {room(h * n * 2), {1, h, n, 2}};
      to->top_weights = {room(h * n * 2), {1, h, n, 2}};
      to->top_keys = {kept_keys.emplace_back(static_cast<std::size_t>(h * n * 2)).data(), {1, h, n, 2}};
      if (map) to->map = {room(h * ((n + 15) / 16) * ((n + 15) / 16)), {1, h, (n + 15) / 16, (n + 15) / 16}};
    }
  }
  Asked(const Asked&) = delete;
};

// The worst distance of head h of got from head 0 of wanted.
double worst(const RowStatistics<float>& got, const RowStatistics<double>& wanted, std::int64_t h) {
  double most = 0;
  const auto rank3 = [&](const View3<float>& a, const View3<double>& w) {
    for (std::int64_t i = 0; i < a.extent(2); ++i) most = std::max(most, distance(a(0, h, i), w(0, 0, i)));
  };
  const auto rank4 = [&](const View4<float>& a, const View4<double>& w) {
    for (std::int64_t i = 0; i < a.extent(2); ++i)
      for (std::int64_t c = 0; c < a.extent(3); ++c) most = std::max(most, distance(a(0, h, i, c), w(0, 0, i, c)));
  };
  rank3(got.visible, wanted.visible), rank3(got.entropy, wanted.entropy), rank3(got.sum_squares, wanted.sum_squares);
  rank3(got.distance, wanted.distance), rank3(got.duplicate_mass, wanted.duplicate_mass);
  rank3(got.received, wanted.received);
  // Dense rows know no sequences, whose first keys have no key before them.
  if (got.map.data()) rank3(got.induction_mass, wanted.induction_mass);
  rank4(got.offset_mass, wanted.offset_mass), rank4(got.class_mass, wanted.class_mass);
  rank4(got.top_weights, wanted.top_weights), rank4(got.map, wanted.map);
  return most;
}

void expect_statistics(const TinyModel& model, const Encoder& encoder, const EncoderInput& input) {
  const std::int64_t n = static_cast<std::int64_t>(input.ids.size()), h = model.heads;
  const auto layers = static_cast<std::size_t>(model.layers);
  std::vector<std::unique_ptr<Asked<float>>> asked;
  std::vector<StatisticsRequest<float>> requests;
  for (std::size_t l = 0; l < layers; ++l) {
    asked.push_back(std::make_unique<Asked<float>>(h, n, input.cu_seqlens.empty()));
    requests.push_back(asked.back()->request);
  }
  std::vector<float> plain(static_cast<std::size_t>(n * model.width)), with(plain.size(), 77);
  encoder.forward(input, MatrixView<float>(plain.data(), {n, model.width}));
  // Norms of heads within layers, tokens first.
  std::vector<float> norms(layers * static_cast<std::size_t>(h * n), 77);
  const View3<float> norms_view(norms.data(), {model.layers, h, n}, {h * n, 1, h});
  encoder.forward(input, MatrixView<float>(with.data(), {n, model.width}), {.threads = 2},
                  {.statistics = requests, .norms = norms_view});
  EXPECT_EQ(plain, with);
  for (std::int64_t head = 0; head < h; ++head) {
    const std::vector<std::int64_t> heads{head};
    std::vector<std::vector<float>> per_head(layers, std::vector<float>(static_cast<std::size_t>(n * n)));
    std::vector<std::vector<float>> products = per_head;
    std::vector<WeightsRequest<float>> weights(layers);
    for (std::size_t l = 0; l < layers; ++l) {
      weights[l].heads = heads, weights[l].per_head = {per_head[l].data(), {1, 1, n, n}};
      weights[l].norm_weighted = {products[l].data(), {1, n, n}};
    }
    encoder.forward(input, MatrixView<float>(with.data(), {n, model.width}), {}, {.weights = weights});
    for (std::size_t l = 0; l < layers; ++l) {
      for (std::int64_t at = 0; at < n * n; ++at)
        EXPECT_EQ(products[l][static_cast<std::size_t>(at)],
                  per_head[l][static_cast<std::size_t>(at)] * norms_view(static_cast<std::int64_t>(l), head, at % n));
      std::vector<double> dense(per_head[l].begin(), per_head[l].end());
      std::vector<double> weighted(products[l].begin(), products[l].end());
      for (std::int64_t row = 0; row < n; ++row) {
        double sum = 0;
        for (std::int64_t j = 0; j < n; ++j) sum += weighted[static_cast<std::size_t>(row * n + j)];
        for (std::int64_t j = 0; j < n; ++j) weighted[static_cast<std::size_t>(row * n + j)] /= sum;
      }
      for (std::vector<double>* of : {&dense, &weighted}) {
        Asked<double> wanted(1, n, input.cu_seqlens.empty());
        wanted.request.norm_weighted = {};
        statistics_of_weights(View4<const double>(of->data(), {1, 1, n, n}), wanted.request);
        const StatisticsRequest<float>& got = asked[l]->request;
        EXPECT_LE(worst(of == &dense ? got.plain : got.norm_weighted, wanted.request.plain, head), 2e-5)
            << "layer " << l << " head " << head << (of == &dense ? "" : " norm_weighted");
        const auto& keys = of == &dense ? got.plain.top_keys : got.norm_weighted.top_keys;
        for (std::int64_t i = 0; i < n; ++i) EXPECT_EQ(keys(0, head, i, 0), wanted.request.plain.top_keys(0, 0, i, 0));
      }
    }
  }
}

TEST(EncoderStatistics, AreThoseOfItsWeights) {
  const TinyModel model("bert", 12);
  const TemporaryFolder folder;
  model.write(folder);
  const Encoder encoder(folder.path());
  std::vector<std::int64_t> ids;
  Random random(5);
  for (int i = 0; i < 19; ++i) ids.push_back(random.between(2, model.vocabulary - 1));
  expect_statistics(model, encoder, {.ids = ids});
  const std::vector<std::int64_t> starts{0, 8, 8, 9, 19};
  expect_statistics(model, encoder, {.ids = ids, .cu_seqlens = starts});
  // A head whose gate is 0 gives nothing, whatever its weights.
  const std::vector<double> gates{1, 0, 1, 1, 1, 1};
  Asked<float> first(3, 19, true), second(3, 19, true);
  const std::vector<StatisticsRequest<float>> requests{first.request, second.request};
  std::vector<float> output(static_cast<std::size_t>(19 * model.width)), norms(2 * 3 * 19, 77);
  encoder.forward({.ids = ids, .gates = {gates.data(), {2, 3}}}, MatrixView<float>(output.data(), {19, model.width}),
                  {}, {.statistics = requests, .norms = {norms.data(), {2, 3, 19}}});
  for (std::int64_t t = 0; t < 19; ++t) {
    EXPECT_EQ(first.request.norm_weighted.received(0, 1, t), 0);
    EXPECT_EQ(norms[static_cast<std::size_t>(19 + t)], 0);
    EXPECT_GT(norms[static_cast<std::size_t>(t)], 0);
    EXPECT_TRUE(std::isnan(first.request.norm_weighted.entropy(0, 1, t)));
    EXPECT_GT(first.request.plain.received(0, 1, t), 0);
  }
}

// Five tokens of one sequence.
struct StatisticsArena {
  std::vector<std::int64_t> ids{5, 6, 7, 8, 9}, starts, numbers{0, 1, 2, 3, 4};
  std::vector<float> floats = std::vector<float>(4000, 0.5f);
  std::vector<std::int64_t> integers = std::vector<std::int64_t>(100);
  std::vector<std::uint32_t> classes{1, 2, 1, 2, 3};
  std::vector<StatisticsRequest<float>> requests = std::vector<StatisticsRequest<float>>(2);
  std::vector<WeightsRequest<float>> weights = std::vector<WeightsRequest<float>>(2);

  StatisticsArena() {
    for (std::size_t l = 0; l < 2; ++l) {
      float* next = floats.data() + 1000 + 1000 * l;
      StatisticsRequest<float>& r = requests[l];
      r.offsets = std::span(numbers).first(2), r.keys = std::span(numbers).first(2), r.bin = 16;
      r.key_classes = {classes.data(), {1, 5}}, r.q_tokens = r.kv_tokens = {numbers.data(), {1, 5}};
      r.plain.entropy = {next, {1, 3, 5}}, r.plain.received = {next + 20, {1, 3, 5}};
      r.plain.offset_mass = {next + 40, {1, 3, 5, 2}}, r.plain.class_mass = {next + 80, {1, 3, 5, 2}};
      r.plain.duplicate_mass = {next + 120, {1, 3, 5}}, r.plain.map = {next + 140, {1, 3, 1, 1}};
      r.norm_weighted.top_weights = {next + 160, {1, 3, 5, 3}};
      r.norm_weighted.top_keys = {integers.data() + 45 * l, {1, 3, 5, 3}};
    }
  }
  StatisticsArena(const StatisticsArena&) = delete;
  void run(const Encoder& encoder) const {
    encoder.forward({.ids = ids, .cu_seqlens = starts}, MatrixView<float>(const_cast<float*>(floats.data()), {5, 15}),
                    {}, {.weights = weights, .statistics = requests});
  }
};
using A = StatisticsArena;

std::vector<Case<A>> refused_cases() {
  return {
      {"one_layer", [](A& a) { a.requests.pop_back(); }, kShape, {"statistics has 1", "one a layer, 2"}},
      {"entropy_extents",
       [](A& a) {
         a.requests[1].plain.entropy = {a.floats.data() + 1000, {1, 3, 4}};
       },
       kShape,
       {"statistics.entropy has extents (1, 3, 4)", "(1, 3, 5)"}},
      {"offsets", [](A& a) { a.requests[1].offsets = a.numbers; }, kShape, {"statistics.offset_mass has extents"}},
      {"far", [](A& a) { a.numbers[1] = std::int64_t{1} << 41; }, kOption, {"an offset of statistics.offsets"}},
      {"token", [](A& a) { a.numbers[4] = -1; }, kOption, {"a token of the statistics is -1"}},
      {"no_tokens", [](A& a) { a.requests[0].q_tokens = {}; }, kOption, {"statistics.duplicate_mass", "kv_tokens"}},
      {"no_classes", [](A& a) { a.requests[0].key_classes = {}; }, kOption, {"statistics.class_mass", "key_classes"}},
      {"classes_short",
       [](A& a) {
         a.requests[1].key_classes = {a.classes.data(), {1, 4}};
       },
       kShape,
       {"statistics.key_classes has extents (1, 4)", "(1, 5)"}},
      {"bin", [](A& a) { a.requests[1].bin = 48; }, kOption, {"statistics.bin is 48"}},
      {"packed_map",
       [](A& a) {
         a.starts = {0, 2, 5};
       },
       ErrorCode::unsupported,
       {"statistics.map", "cu_seqlens"}},
      {"norms",
       [](A& a) {
         a.requests[1].norms = {a.floats.data(), {1, 3, 5}};
       },
       kOption,
       {"statistics.norms is given", "the encoder computes"}},
      {"places",
       [](A& a) {
         a.requests[1].norm_weighted.top_keys = {a.integers.data(), {1, 3, 5, 2}};
       },
       kShape,
       {"statistics.top_keys has 2 places", "3"}},
  };
}

std::vector<Case<A>> refused_places() {
  return {
      {"overlap",
       [](A& a) {
         a.requests[1].plain.received = {a.floats.data() + 10, {1, 3, 5}};
       },
       kShape,
       {"statistics.received overlaps output"}},
      {"overlap_of_layers",
       [](A& a) { a.requests[1].plain.received = a.requests[0].plain.entropy; },
       kShape,
       {"statistics.received overlaps statistics.entropy"}},
      {"overlap_of_input",
       [](A& a) {
         a.requests[1].norm_weighted.top_keys = {a.numbers.data(), {1, 3, 5, 3}};
       },
       kShape,
       {"layer 1's statistics.norm_weighted.top_keys overlaps"}},
      {"norm_weighted_extents",
       [](A& a) {
         a.requests[1].norm_weighted.entropy = {a.floats.data() + 1500, {1, 3, 4}};
       },
       kShape,
       {"layer 1's statistics.norm_weighted.entropy has extents (1, 3, 4)", "(1, 3, 5)"}},
      {"bin_vast",
       [](A& a) { a.requests[0].bin = std::numeric_limits<std::int64_t>::max() - 127; },
       kOption,
       {"statistics.bin is 9223372036854775680", "up to 1099511627776"}},
      {"on_the_heads_of_weights",
       [](A& a) {
         a.weights[0].heads = std::span(a.integers).subspan(45, 1);
         a.weights[0].per_head = {a.floats.data() + 3500, {1, 1, 5, 5}};
       },
       kShape,
       {"layer 1's statistics.norm_weighted.top_keys overlaps weights.heads"}},
      {"on_the_rows_of_weights",
       [](A& a) {
         a.weights[1].rows = std::span(a.integers).subspan(0, 1);
         a.weights[1].mean = {a.floats.data() + 3500, {1, 1, 5}};
       },
       kShape,
       {"layer 0's statistics.norm_weighted.top_keys overlaps weights.rows"}},
      {"weights_on_their_rows",
       [](A& a) {
         a.weights[1].rows = {reinterpret_cast<const std::int64_t*>(a.floats.data() + 3500), 2};
         std::fill_n(a.floats.data() + 3500, 4, 0.0f);
         a.weights[1].mean = {a.floats.data() + 3500, {1, 2, 5}};
       },
       kShape,
       {"layer 1's weights.mean overlaps weights.rows"}},
  };
}

TEST(EncoderStatistics, RulesAreKept) {
  const TinyModel model("bert", 12);
  const TemporaryFolder folder;
  model.write(folder);
  const Encoder encoder(folder.path());
  {
    const StatisticsArena arena;
    EXPECT_NO_THROW(arena.run(encoder));
  }
  std::vector<Case<A>> cases = refused_cases();
  for (const Case<A>& c : refused_places()) cases.push_back(c);
  for (const Case<A>& c : cases) {
    SCOPED_TRACE(c.name);
    StatisticsArena arena;
    c.change(arena);
    const std::vector<float> before = arena.floats;
    expect_error("Encoder", c.code, c.words, [&] { arena.run(encoder); });
    EXPECT_EQ(arena.floats, before) << "written before it was refused";
  }
}

}  // namespace
}  // namespace multihead::testing

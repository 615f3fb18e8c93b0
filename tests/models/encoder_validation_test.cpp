// SPDX-License-Identifier: Apache-2.0
// Every rule of a call of Encoder and of mean_pool.
#include <gtest/gtest.h>

#include <limits>

#include "models/tiny_model.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

// A sequence of 3 and one of 4 tokens.
struct EncoderArena {
  std::vector<std::int64_t> ids{5, 6, 7, 8, 9, 10, 11}, starts{0, 3, 7}, types{0, 1, 0, 1, 0, 1, 0};
  std::vector<float> floats = std::vector<float>(20000, 0.5f);
  MatrixView<float> output{floats.data(), {7, 15}};
  View3<float> states{floats.data() + 1000, {3, 7, 15}};
  View3<float> norms{floats.data() + 8000, {2, 3, 7}};
  std::vector<WeightsRequest<float>> weights = std::vector<WeightsRequest<float>>(2);
  std::vector<std::int64_t> places{0, 2};
  std::vector<std::int64_t> amid = std::vector<std::int64_t>(64, 1);  // room for an output on both sides of a list
  std::vector<double> gate = std::vector<double>(8, 1);
  MatrixView<const double> gates{gate.data(), {2, 3}, {4, 1}};
  LayerOptions options;

  EncoderArena() {
    for (int l = 0; l < 2; ++l) {
      weights[l].per_head = {floats.data() + 2000 + 1000 * l, {1, 3, 7, 7}};
      weights[l].mean = {floats.data() + 4000 + 1000 * l, {1, 7, 7}};
      weights[l].norm_weighted = {floats.data() + 6000 + 1000 * l, {1, 7, 7}};
    }
  }
  EncoderArena(const EncoderArena&) = delete;
  void run(const Encoder& encoder) const {
    encoder.forward({.ids = ids, .cu_seqlens = starts, .token_types = types, .gates = gates}, output, options,
                    {.hidden_states = states, .weights = weights, .norms = norms});
  }
};
using A = EncoderArena;

std::vector<Case<A>> input_cases() {
  return {
      {"id_minus", [](A& a) { a.ids[3] = -1; }, kOption, {"an id is -1", "0 to 36"}},
      {"id_37", [](A& a) { a.ids[6] = 37; }, kOption, {"an id is 37", "0 to 36"}},
      {"type_2", [](A& a) { a.types[1] = 2; }, kOption, {"a token type is 2", "0 to 1"}},
      {"types_short", [](A& a) { a.types.pop_back(); }, kShape, {"token_types has 6", "ids 7"}},
      {"starts_at_1", [](A& a) { a.starts[0] = 1; }, kOption, {"cu_seqlens begins with 1"}},
      {"starts_descend",
       [](A& a) {
         a.starts = {0, 4, 3, 7};
       },
       kOption,
       {"cu_seqlens has 3 after 4"}},
      {"starts_end", [](A& a) { a.starts[2] = 6; }, kShape, {"cu_seqlens ends with 6", "7 tokens"}},
      {"long",
       [](A& a) { a.ids.assign(21, 4), a.starts.clear(), a.types.clear(); },
       kOption,
       {"a sequence has 21 tokens", "at most 20"}},
      {"threads_0", [](A& a) { a.options.threads = 0; }, kOption, {"threads is 0", "1 to 65536"}},
      {"threads_vast", [](A& a) { a.options.threads = 70000; }, kOption, {"threads is 70000"}},
      foreign_target<A>(),
      {"gates_heads",
       [](A& a) {
         a.gates = {a.gate.data(), {2, 4}};
       },
       kShape,
       {"gates has extents (2, 4)", "must be (2, 3)"}},
      {"gates_null",
       [](A& a) {
         a.gates = {nullptr, {2, 3}, {3, 1}};
       },
       kShape,
       {"gates is null"}},
      {"gates_far",
       [](A& a) {
         a.gates = {a.gate.data(), {2, 3}, {kHuge << 22, 1}};
       },
       kShape,
       {"gates has extents and strides beyond the address space"}},
      {"gate_infinite", [](A& a) { a.gate[6] = -std::numeric_limits<double>::infinity(); }, kOption, {"a gate is not"}},
      {"gates_overlapped",
       [](A& a) {
         a.gates = {reinterpret_cast<const double*>(a.output.data()) + 5, {2, 3}, {-1, 0}};
       },
       kShape,
       {"output overlaps gates"}},
  };
}

std::vector<Case<A>> output_cases() {
  float* const null = nullptr;
  return {
      {"output_rows",
       [](A& a) {
         a.output = {a.floats.data(), {6, 15}};
       },
       kShape,
       {"output has extents (6, 15)", "must be (7, 15)"}},
      {"output_null",
       [=](A& a) {
         a.output = {null, {7, 15}};
       },
       kShape,
       {"output is null"}},
      {"output_stride",
       [](A& a) {
         a.output = {a.floats.data(), {7, 15}, {1, 7}};
       },
       kShape,
       {"output has stride 7 on its last axis"}},
      {"output_folded",
       [](A& a) {
         a.output = {a.floats.data(), {7, 15}, {14, 1}};
       },
       kShape,
       {"output has strides that put two elements in one place"}},
      {"output_far",
       [](A& a) {
         a.output = {a.floats.data(), {7, 15}, {kHuge << 22, 1}};
       },
       kShape,
       {"output has extents and strides beyond the address space"}},
      {"states_layers",
       [](A& a) {
         a.states = {a.floats.data() + 1000, {2, 7, 15}};
       },
       kShape,
       {"hidden_states has extents (2, 7, 15)", "(3, 7, 15)"}},
      {"states_on_output",
       [](A& a) {
         a.states = {a.floats.data() + 104, {3, 7, 15}};
       },
       kShape,
       {"hidden_states overlaps output", "must be apart"}},
      {"output_on_ids",
       [](A& a) {
         a.output = {reinterpret_cast<float*>(a.ids.data()) - 104, {7, 15}};
       },
       kShape,
       {"output overlaps ids"}},
  };
}

std::vector<Case<A>> norms_cases() {
  return {
      {"norms_layers",
       [](A& a) {
         a.norms = {a.floats.data() + 8000, {3, 3, 7}};
       },
       kShape,
       {"norms has extents (3, 3, 7)", "(2, 3, 7)"}},
      {"norms_null",
       [](A& a) {
         a.norms = {static_cast<float*>(nullptr), {2, 3, 7}};
       },
       kShape,
       {"norms is null"}},
      {"norms_folded",
       [](A& a) {
         a.norms = {a.floats.data() + 8000, {2, 3, 7}, {21, 6, 1}};
       },
       kShape,
       {"norms has strides that put two elements in one place"}},
      {"norms_on_states",
       [](A& a) {
         a.norms = {a.floats.data() + 1300, {2, 3, 7}};
       },
       kShape,
       {"norms overlaps hidden_states"}},
      {"weights_on_norms",
       [](A& a) {
         a.norms = {a.floats.data() + 2100, {2, 3, 7}};
       },
       kShape,
       {"weights.per_head overlaps norms"}},
      {"norms_on_heads",
       [](A& a) {
         a.amid[32] = 2;
         a.weights[1].heads = std::span(a.amid).subspan(31, 2);
         a.weights[1].per_head = {a.floats.data() + 3000, {1, 2, 7, 7}};
         a.norms = {reinterpret_cast<float*>(a.amid.data()) + 22, {2, 3, 7}};
       },
       kShape,
       {"norms overlaps weights.heads"}},
  };
}

std::vector<Case<A>> weights_cases() {
  return {
      {"weights_count", [](A& a) { a.weights.pop_back(); }, kShape, {"weights has 1 requests", "one a layer, 2"}},
      {"weights_extents",
       [](A& a) {
         a.weights[1].mean = {a.floats.data() + 5000, {1, 7, 6}};
       },
       kShape,
       {"weights.mean has extents (1, 7, 6)", "(1, 7, 7)"}},
      {"weights_heads",
       [](A& a) { a.weights[1].heads = a.places; },
       kShape,
       {"weights.per_head has extents (1, 3, 7, 7)", "(1, 2, 7, 7)"}},
      {"weights_head_3",
       [](A& a) { a.places[1] = 3, a.weights[1].heads = a.places; },
       kOption,
       {"a head of weights.heads is 3", "0 to 2"}},
      {"weights_head_twice",
       [](A& a) { a.places[1] = 0, a.weights[1].heads = a.places; },
       kOption,
       {"weights.heads 0 is asked for twice"}},
      {"weights_row_7",
       [](A& a) { a.places[1] = 7, a.weights[1].rows = a.places; },
       kOption,
       {"a row of weights.rows is 7", "0 to 6"}},
      {"weights_of_layers_overlap",
       [](A& a) { a.weights[1].per_head = a.weights[0].per_head; },
       kShape,
       {"weights.per_head overlaps weights.per_head"}},
      {"weights_point",
       [](A& a) { a.weights[1].point = WeightsPoint::scaled; },
       kOption,
       {"norm_weighted is asked for at a point that is not normalised"}},
      {"weights_norms",
       [](A& a) {
         a.weights[1].norms = {a.floats.data() + 9000, {1, 3, 7}};
       },
       kOption,
       {"weights.norms is given"}},
  };
}

class AtEncoder : public ::testing::TestWithParam<Case<A>> {};
TEST_P(AtEncoder, Refused) {
  static const TinyModel model("bert");
  static const Encoder encoder = [] {
    const TemporaryFolder folder;
    model.write(folder);
    return Encoder(folder.path());
  }();
  const A legal;
  EXPECT_NO_THROW(legal.run(encoder));
  A arena;
  GetParam().change(arena);
  const std::vector<float> before = arena.floats;
  expect_error("Encoder", GetParam().code, GetParam().words, [&] { arena.run(encoder); });
  EXPECT_EQ(arena.floats, before) << "something was written";
}
INSTANTIATE_TEST_SUITE_P(Inputs, AtEncoder, ::testing::ValuesIn(input_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Outputs, AtEncoder, ::testing::ValuesIn(output_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Weights, AtEncoder, ::testing::ValuesIn(weights_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Norms, AtEncoder, ::testing::ValuesIn(norms_cases()), name_of);

TEST(EncoderValidation, MeanPool) {
  std::vector<float> values(60, 0.5f);
  const std::vector<std::int64_t> legal{0, 2, 5};
  const auto refused = [&](std::vector<std::int64_t> starts, MatrixView<const float> hidden, MatrixView<float> vectors,
                           ErrorCode code, const Words& words) {
    expect_error("mean_pool", code, words, [&] { mean_pool(hidden, starts, true, vectors); });
    EXPECT_EQ(values, std::vector<float>(60, 0.5f));
  };
  const MatrixView<const float> hidden(values.data(), {5, 4});
  const MatrixView<float> vectors(values.data() + 30, {2, 4});
  refused({1, 5}, hidden, vectors, kOption, {"cu_seqlens begins with 1"});
  refused({0, 3, 2, 5}, hidden, vectors, kOption, {"cu_seqlens has 2 after 3"});
  refused({0, 2, 6}, hidden, vectors, kShape, {"cu_seqlens ends with 6", "5"});
  refused(legal, hidden, {values.data() + 30, {3, 4}}, kShape, {"vectors has extents (3, 4)", "(2, 4)"});
  refused(legal, hidden, {values.data() + 19, {2, 4}}, kShape, {"vectors overlaps hidden"});
  std::vector<std::int64_t> same(8);
  same[1] = 2, same[2] = 5;
  expect_error("mean_pool", kShape, {"vectors overlaps cu_seqlens"}, [&] {
    mean_pool(hidden, std::span(same).first(3), true, {reinterpret_cast<float*>(same.data()) + 5, {2, 4}});
  });
  refused({0, 1, 3}, {values.data(), {3, 4}, {8, 2}}, vectors, kShape, {"hidden has stride 2"});
  refused(legal, {nullptr, {5, 4}}, vectors, kShape, {"hidden is null"});
  refused(legal, hidden, {values.data() + 30, {2, 4}, {12, 3}}, kShape, {"vectors has stride 3"});
}

}  // namespace
}  // namespace multihead::testing

// SPDX-License-Identifier: Apache-2.0
// Statistics through the C face give what C++ gives, bit for bit; what no output reads is refused.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "allocations.hpp"
#include "c_face.hpp"
#include "module_problem.hpp"
#include "statistics_problem.hpp"

namespace multihead::testing {
namespace {

template <class T>
class CStatistics : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(CStatistics, Types);

// Every statistic of a problem, those of the second pass too.
template <class Real>
struct Room {
  StatisticsLists lists;
  StatisticsRoom<Real> plain, weighted;
  std::vector<Real> norms, columns;
  StatisticsRequest<Real> request;

  explicit Room(const Problem& p)
      : lists(p),
        plain({p.shape.batch, p.shape.heads, p.shape.q_len}, lists),
        weighted({p.shape.batch, p.shape.heads, p.shape.q_len}, lists) {
    const std::int64_t count = p.shape.batch * p.shape.heads * p.shape.kv_len;
    norms.assign(static_cast<std::size_t>(count) + 1, Real(1.5));
    columns.assign(static_cast<std::size_t>(count) + 1, 77);
    request = request_of(p, lists, plain.to);
    request.plain.received = {columns.data(), {p.shape.batch, p.shape.heads, p.shape.kv_len}};
    if (p.seed % 3 != 0) return;
    request.norms = {norms.data(), {p.shape.batch, p.shape.heads, p.shape.kv_len}};
    request.norm_weighted = weighted.to;
  }
  std::uint64_t bits(std::uint64_t hash) const {
    const auto add = [&](const char*, const auto& view) { hash = hash_bits(view, hash); };
    plain.each(add), weighted.each(add);
    add("", plain.to.top_keys), add("", weighted.to.top_keys), add("", request.plain.received);
    return hash;
  }
};

template <class Call>
std::string outcome(const Call& call) {
  try {
    return std::to_string(call());
  } catch (const Error& error) {
    return std::string(error_name(error.code())) + ": " + error.what();
  }
}

TYPED_TEST(CStatistics, HaveTheBitsOfCpp) {
  using T = TypeParam;
  for (int seed = 0; seed < (quick_share() ? 10 : 60); ++seed) {
    const Problem p = draw_problem(static_cast<std::uint64_t>(seed) + 9700, kTypeOf<T>);
    Tensors<T> in(p);
    const auto bits = [&](const auto& door) {
      return outcome([&] {
        Tensor<T> out({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.value_dim}, p.heads_inside, p.padding);
        const Room<Sum<T>> room(p);
        door(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), out.view, View3<Sum<T>>{},
             WeightsRequest<Sum<T>>{}, room.request, p.options());
        return room.bits(hash_bits(out.view));
      });
    };
    EXPECT_EQ(bits([](const auto&... x) { c_face::attention<T>(x...); }),
              bits([](const auto&... x) { attention(x...); }))
        << p.describe();
  }
}

TYPED_TEST(CStatistics, ScratchIsThatOfCpp) {
  using T = TypeParam;
  for (int seed = 0; seed < (quick_share() ? 5 : 20); ++seed) {
    const Problem p = draw_problem(static_cast<std::uint64_t>(seed) + 9700, kTypeOf<T>);
    const Room<Sum<T>> room(p);
    const AttentionOptions options = p.options();
    EXPECT_EQ(
        outcome([&] {
          const c_face::Attention structs(options);
          const c_face::Statistics<Sum<T>> asked(room.request);
          const mh_attention_shape shape = c_face::shape_of(p.shape);
          std::size_t bytes = 0;
          c_face::require(mh_attention_statistics_scratch_bytes(&shape, &structs.options, 1, &asked.request, &bytes));
          return bytes;
        }),
        outcome([&] { return attention_scratch_bytes(p.shape, options, true, room.request); }));
  }
}

TEST(CStatisticsOfFloat, NothingIsAllocatedAfterTheFirstCall) {
  const Problem p = draw_problem(9703, Type::float32);
  Tensors<float> in(p);
  Tensor<float> out({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.value_dim}, p.heads_inside, p.padding);
  const Room<float> room(p);
  const auto options = p.options();
  const auto run = [&] {
    c_face::attention<float>(in.q.view, in.k.view, in.v.view, out.view, View3<float>{}, {}, room.request, options);
  };
  run();
  const std::int64_t before = allocations;
  run();
  EXPECT_EQ(allocations - before, 0);
}

TEST(CStatisticsOfFloat, OfALayer) {
  int run = 0;
  for (std::uint64_t seed = 5000; run < 20; ++seed) {
    ModuleProblem<float> p(seed);
    const MultiHeadAttention<float> layer = p.layer();
    if (layer.extents().extra_keys > 0) continue;
    ++run;
    const c_face::Layer handle(p.spec, p.weights());
    const std::int64_t heads = layer.extents().heads, count = p.batch * heads * p.q_len;
    const auto bits = [&](const auto& forward) {
      std::vector<float> entropy(static_cast<std::size_t>(count) + 1, 77), weighted = entropy;
      ModuleResults<float> results;
      const View3<float> to = results.output_view(p);
      MultiHeadRequests<float> requests;
      requests.statistics.plain.entropy = {entropy.data(), {p.batch, heads, p.q_len}};
      requests.statistics.norm_weighted.entropy = {weighted.data(), {p.batch, heads, p.q_len}};
      return outcome([&] {
        forward(to, requests);
        return hash_bits(requests.statistics.plain.entropy,
                         hash_bits(requests.statistics.norm_weighted.entropy, hash_bits(to)));
      });
    };
    EXPECT_EQ(bits([&](View3<float> to, const auto& requests) {
                handle.forward<float>(p.query.view, p.keys(), p.values(), to, p.options, requests);
              }),
              bits([&](View3<float> to, const auto& requests) {
                layer.forward(p.query.view, p.keys(), p.values(), to, p.options, requests);
              }))
        << p.describe();
  }
}

TEST(CStatisticsOfFloat, OfWeights) {
  std::vector<float> weights{0.5f, 0.5f, 0, 0.25f, 0.25f, 0.5f}, found(2, 77), wanted(2, 77);
  const View4<const float> view(weights.data(), {1, 1, 2, 3});
  const auto ask = [](std::vector<float>& to) {
    StatisticsRequest<float> request;
    request.plain.distance = {to.data(), {1, 1, 2}};
    return request;
  };
  const c_face::Statistics<float> request(ask(found));
  const mh_tensor tensor = c_face::tensor_of(view);
  ASSERT_EQ(mh_statistics_of_weights(&tensor, &request.request, 1), MH_OK) << mh_last_error_message();
  statistics_of_weights(view, ask(wanted), 1);
  EXPECT_EQ(found, wanted);
  EXPECT_EQ(found[1], 0.25f * 2 + 0.25f);
}

// A call that asks for entropy, and what is changed of it.
using Change = std::function<void(mh_statistics_request&, mh_row_statistics&)>;
struct Asked {
  std::vector<float> numbers = std::vector<float>(64, 0.5f);
  std::vector<std::int64_t> whole = std::vector<std::int64_t>(64, 0);
  mh_tensor q, rows, norms, ids, classes;

  Asked() {
    q = c_face::tensor_of(View4<float>(numbers.data(), {1, 1, 2, 4}));
    rows = c_face::tensor_of(View3<float>(numbers.data() + 16, {1, 1, 2}));
    norms = c_face::tensor_of(View3<float>(numbers.data() + 24, {1, 1, 2}));
    ids = c_face::tensor_of(View<std::int64_t, 1>(whole.data(), {2}));
    classes = c_face::tensor_of(MatrixView<std::uint32_t>(reinterpret_cast<std::uint32_t*>(whole.data()), {1, 2}));
  }
  void refused(mh_status status, const std::string& sentence, const Change& change) {
    std::vector<float> out(8, 77);
    const mh_tensor to = c_face::tensor_of(View4<float>(out.data(), {1, 1, 2, 4}));
    mh_row_statistics plain;
    mh_row_statistics_init(&plain, sizeof plain);
    plain.entropy = &rows;
    mh_statistics_request request;
    mh_statistics_request_init(&request, sizeof request);
    request.plain = &plain;
    change(request, plain);
    EXPECT_EQ(mh_attention_statistics(&q, &q, &q, &to, nullptr, nullptr, &request, nullptr), status) << sentence;
    if (status == MH_OK) return;
    EXPECT_EQ(mh_last_error_message(), "attention: " + sentence);
    EXPECT_EQ(out, std::vector<float>(8, 77));
  }
};

TEST(CStatisticsOfFloat, NothingThatIsSetIsIgnored) {
  Asked asked;
  using S = mh_statistics_request;
  using R = mh_row_statistics;
  asked.refused(MH_OK, "", [](S&, R&) {});
  const auto unread = [&](const std::string& rule, const Change& change) {
    asked.refused(MH_BAD_OPTION, "statistics." + rule, change);
  };
  unread("offsets is given; without offset_mass it must be NULL", [&](S& s, R&) { s.offsets = &asked.ids; });
  unread("keys is given; without key_mass it must be NULL", [&](S& s, R&) { s.keys = &asked.ids; });
  unread("key_classes is given; without class_mass it must be NULL", [&](S& s, R&) { s.key_classes = &asked.classes; });
  unread("q_tokens is given; without duplicate_mass and induction_mass it must be NULL",
         [&](S& s, R&) { s.q_tokens = &asked.ids; });
  unread("kv_tokens is given; without duplicate_mass and induction_mass it must be NULL",
         [&](S& s, R&) { s.kv_tokens = &asked.ids; });
  unread("bin is 16; without map it must be 0", [](S& s, R&) { s.bin = 16; });
  unread("norms is given; without norm_weighted it must be NULL", [&](S& s, R&) { s.norms = &asked.norms; });
  asked.refused(MH_BAD_ARGUMENT, "mh_statistics_request.reserved is 1; it must be 0", [](S& s, R&) { s.reserved = 1; });
  asked.refused(MH_BAD_ARGUMENT, "mh_row_statistics.reserved is 1; it must be 0", [](S&, R& r) { r.reserved = 1; });
  asked.refused(MH_BAD_TYPE, "statistics.key_classes has type float32; it must be uint32", [&](S& s, R& r) {
    asked.norms = c_face::tensor_of(MatrixView<float>(asked.numbers.data() + 24, {1, 2}));
    r.class_mass = &asked.q, s.key_classes = &asked.norms;
  });
  asked.refused(MH_BAD_TYPE, "statistics.top_keys has type float32; it must be int64",
                [&](S&, R& r) { r.top_keys = &asked.q; });
  mh_tensor empty = asked.ids;
  empty.shape[0] = 0;
  asked.refused(MH_SHAPE_MISMATCH, "statistics.offsets has no elements; it must have some, or not be given",
                [&](S& s, R& r) { s.offsets = &empty, r.offset_mass = &asked.q; });
}

TEST(CStatisticsOfFloat, OfWeightsWithoutARequestAreRefused) {
  const float weights[1] = {1};
  const mh_tensor tensor{const_cast<float*>(weights), MH_FLOAT32, 4, {1, 1, 1, 1}, {1, 1, 1, 1}};
  mh_statistics_request request;
  mh_statistics_request_init(&request, sizeof request);
  mh_row_statistics rows;
  mh_row_statistics_init(&rows, sizeof rows);
  const auto refused = [&](const mh_tensor* given, const mh_statistics_request* asked, const std::string& words) {
    EXPECT_EQ(mh_statistics_of_weights(given, asked, 0), MH_BAD_ARGUMENT);
    EXPECT_EQ(mh_last_error_message(), "statistics_of_weights: " + words);
  };
  const std::string nothing = "statistics asks for nothing; an output of its plain or norm_weighted must be given";
  refused(&tensor, nullptr, "statistics is NULL; it must be given");
  refused(nullptr, &request, "weights is NULL; it must be given");
  refused(&tensor, &request, nothing);
  request.plain = &rows;
  refused(&tensor, &request, nothing);
}

}  // namespace
}  // namespace multihead::testing

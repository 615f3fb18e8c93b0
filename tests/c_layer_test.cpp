// SPDX-License-Identifier: Apache-2.0
// Handles of layers give what the C++ layer gives, bit for bit, from many threads and from the tensors of a layout.
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "allocations.hpp"
#include "c_face.hpp"
#include "module_problem.hpp"

namespace multihead::testing {
namespace {

int problems() { return quick_share() ? 15 : 80; }

template <class T>
class CLayer : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(CLayer, Types);

template <class T>
std::uint64_t bits(const ModuleResults<T>& r) {
  const auto hash = [](const auto& values, std::uint64_t before) {
    using V = std::remove_cvref_t<decltype(values[0])>;
    return hash_bits(View<const V, 1>(values.data(), {static_cast<std::int64_t>(values.size())}), before);
  };
  return hash(r.norm_weighted,
              hash(r.mean, hash(r.per_head, hash(r.heads, hash(r.lse, hash(r.output, hash(r.norms, 1)))))));
}

template <class T>
void run_c(const c_face::Layer& layer, const ModuleProblem<T>& p, ModuleResults<T>& results) {
  const View3<T> to = results.output_view(p);
  const View3<const T> none;
  layer.forward<T>(p.query.view, p.self ? none : p.keys(), p.self ? none : p.values(), to, p.options,
                   results.requests(p));
}

TYPED_TEST(CLayer, ForwardHasTheBitsOfCpp) {
  using T = TypeParam;
  for (int seed = 0; seed < problems(); ++seed) {
    ModuleProblem<T> p(static_cast<std::uint64_t>(seed) + 5000);
    const MultiHeadAttention<T> layer = p.layer();
    const c_face::Layer handle(p.spec, p.weights());
    ModuleResults<T> wanted, got;
    wanted.run(layer, p, p.options, true);
    run_c(handle, p, got);
    EXPECT_EQ(bits(got), bits(wanted)) << p.describe();
    EXPECT_EQ(handle.scratch_bytes(p.batch, p.q_len, p.kv_len, p.self, p.options, got.requests(p)),
              layer.scratch_bytes(p.batch, p.q_len, p.kv_len, p.self, p.options, wanted.requests(p)));
    const mh_layer_extents e = handle.extents();
    EXPECT_EQ(e.type, c::kCType<T>);
    const auto& w = layer.extents();
    EXPECT_EQ((std::array{e.model_dim, e.kdim, e.vdim, e.heads, e.kv_heads, e.head_dim, e.value_dim, e.out_dim,
                          e.extra_keys}),
              (std::array{w.model_dim, w.kdim, w.vdim, w.heads, w.kv_heads, w.head_dim, w.value_dim, w.out_dim,
                          w.extra_keys}));
  }
}

TYPED_TEST(CLayer, ManyThreadsUseOneHandle) {
  using T = TypeParam;
  ModuleProblem<T> p(5003);
  const c_face::Layer handle(p.spec, p.weights());
  ModuleResults<T> wanted;
  run_c(handle, p, wanted);
  std::vector<std::thread> threads;
  std::array<std::uint64_t, 4> found{};
  for (std::uint64_t& own : found)
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) {
        ModuleResults<T> results;
        run_c(handle, p, results);
        own = bits(results);
        const mh_tensor none{};  // each thread has a sentence of its own
        mh_layer_forward(handle.get(), &none, nullptr, nullptr, nullptr, nullptr, nullptr);
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (std::uint64_t own : found) EXPECT_EQ(own, bits(wanted));
}

TEST(CLayerOfOne, NothingIsAllocatedAfterTheFirstCall) {
  for (int seed = 0; seed < problems(); ++seed) {
    ModuleProblem<float> p(static_cast<std::uint64_t>(seed) + 5400);
    const c_face::Layer handle(p.spec, p.weights());
    ModuleResults<float> results;
    const View3<float> to = results.output_view(p);
    const auto requests = results.requests(p);
    const auto run = [&] { handle.forward<float>(p.query.view, p.keys(), p.values(), to, p.options, requests); };
    run();
    const std::int64_t before = allocations;
    run();
    EXPECT_EQ(allocations - before, 0) << p.describe();
  }
}

// Tensors of a layout, their names after a prefix, and one that belongs to another part.
struct NamedTensors {
  std::vector<std::vector<float>> memory;
  std::vector<std::string> names;
  std::vector<mh_named_tensor> tensors;
  std::vector<NamedTensor<float>> cpp;

  NamedTensors() {
    Random random(3);
    const std::map<std::string, std::vector<std::int64_t>> shapes{
        {"q_proj.weight", {24, 10}}, {"k_proj.weight", {12, 10}}, {"v_proj.weight", {12, 10}},
        {"o_proj.weight", {10, 24}}, {"q_norm.weight", {6}},      {"k_norm.weight", {6}}};
    for (const auto& [name, shape] : shapes) add("layers.3." + name, shape, random);
    for (std::size_t i = 0; i < names.size(); ++i) tensors[i].name = names[i].c_str(), cpp[i].name = names[i];
    tensors.push_back({"norm.weight", {nullptr, 42, 7, {}, {}}});  // not read
  }
  void add(const std::string& name, const std::vector<std::int64_t>& shape, Random& random) {
    std::int64_t count = 1;
    for (std::int64_t extent : shape) count *= extent;
    std::vector<float>& values = memory.emplace_back();
    for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(random.normal()));
    names.push_back(name);
    mh_named_tensor& tensor = tensors.emplace_back();
    ASSERT_EQ(
        mh_tensor_init(&tensor.tensor, values.data(), MH_FLOAT32, static_cast<int32_t>(shape.size()), shape.data()),
        MH_OK);
    cpp.push_back({{}, values.data(), shape});
  }
};

TEST(CLayerOfOne, LoadIsLoadLayer) {
  NamedTensors named;
  MultiHeadSpec spec{.heads = 4, .kv_heads = 2};
  spec.rotary = RotaryOptions{};
  mh_layer_spec c_spec = c_face::spec_of(spec, MH_FLOAT32);
  mh_layer* layer = nullptr;
  const auto load = [&] {
    return mh_layer_load("qwen3", named.tensors.data(), named.tensors.size(), "layers.3.", &c_spec, &layer);
  };
  ASSERT_EQ(load(), MH_OK) << mh_last_error_message();
  const MultiHeadAttention<float> wanted =
      load_layer("qwen3", std::span<const NamedTensor<float>>(named.cpp), spec, {.prefix = "layers.3."});
  std::vector<float> x(50, 0.5f), got(50), by_cpp(50);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3;
  wanted.forward(View3<const float>(x, {1, 5, 10}), View3<float>(by_cpp, {1, 5, 10}));
  const mh_tensor in = c_face::tensor_of(View3<const float>(x, {1, 5, 10})),
                  out = c_face::tensor_of(View3<float>(got, {1, 5, 10}));
  ASSERT_EQ(mh_layer_forward(layer, &in, nullptr, nullptr, &out, nullptr, nullptr), MH_OK) << mh_last_error_message();
  EXPECT_EQ(got, by_cpp);
  mh_layer_destroy(layer);
  mh_layer_destroy(nullptr);

  layer = nullptr;
  const auto refused = [&](mh_status status, const char* word) {
    EXPECT_EQ(load(), status);
    EXPECT_NE(std::string(mh_last_error_message()).find(word), std::string::npos) << mh_last_error_message();
    EXPECT_EQ(layer, nullptr);
  };
  named.tensors[0].tensor.strides[0] = 11;
  refused(MH_SHAPE_MISMATCH, "load_layer: layers.3.k_norm.weight has stride 11 on axis 0; it must be 1");
  named.tensors[0].tensor.strides[0] = 1;
  named.tensors[1].tensor.type = MH_FLOAT64;
  refused(MH_BAD_TYPE, "layers.3.k_proj.weight has type float64; it must be float32");
  named.tensors[1].tensor.type = MH_FLOAT32;
  named.tensors[2].name = nullptr;
  refused(MH_BAD_ARGUMENT, "the name of tensor 2 is NULL");
  named.tensors[2].name = "another";
  refused(MH_BAD_OPTION, "o_proj.weight");
}

}  // namespace
}  // namespace multihead::testing

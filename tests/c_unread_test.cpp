// SPDX-License-Identifier: Apache-2.0
// Nothing that is set is ignored: what a layer would not read of its spec, what merge and the scratch queries refuse.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "multihead/multihead.h"

namespace multihead::testing {
namespace {

std::vector<float> numbers(256, 0.5f);

mh_tensor made(std::initializer_list<std::int64_t> shape) {
  mh_tensor tensor{};
  EXPECT_EQ(mh_tensor_init(&tensor, numbers.data(), MH_FLOAT32, static_cast<int32_t>(shape.size()), shape.begin()),
            MH_OK);
  return tensor;
}

void expect_refused(mh_status status, mh_status wanted, const std::string& sentence) {
  EXPECT_EQ(mh_status_string(status), std::string(mh_status_string(wanted))) << sentence;
  EXPECT_EQ(mh_last_error_message(), sentence);
}

using Change = std::function<void(mh_layer_spec&)>;

mh_status create(const Change& change, bool fused = false) {
  mh_layer_spec spec;
  mh_layer_spec_init(&spec, sizeof spec);
  spec.type = MH_FLOAT32, spec.heads = 2, spec.order = MH_ORDER_IN_OUT;
  change(spec);
  mh_layer_weights weights;
  mh_layer_weights_init(&weights, sizeof weights);
  const mh_tensor square = made({8, 8}), wide = made({8, 24});
  weights.out = &square;
  if (fused)
    weights.qkv = &wide;
  else
    weights.q = weights.k = weights.v = &square;
  mh_layer* layer = nullptr;
  const mh_status status = mh_layer_create(&spec, &weights, &layer);
  EXPECT_EQ(status == MH_OK, layer != nullptr);
  mh_layer_destroy(layer);
  return status;
}

TEST(CUnread, OfASpec) {
  const auto refused = [](const std::string& rule, const Change& change) {
    expect_refused(create(change), MH_BAD_OPTION, "MultiHeadAttention: " + rule);
  };
  using S = mh_layer_spec;
  refused("rotary_dim is 2; without rotary it must be 0", [](S& s) { s.rotary_dim = 2; });
  refused("rotary_theta is 5.5; without rotary it must be 10000", [](S& s) { s.rotary_theta = 5.5; });
  refused("rotary_scaling is given; without rotary it must be NULL", [](S& s) { s.rotary_scaling = "default"; });
  refused("max_positions is 64; without rotary it must be 4096", [](S& s) { s.max_positions = 64; });
  refused("fused_order is 1; without qkv it must be 0", [](S& s) { s.fused_order = MH_FUSED_GROUPS; });
  refused("q_norm_eps is 0.001; without a kind of norm it must be 1e-06", [](S& s) { s.q_norm_eps = 1e-3; });
  refused("k_norm_eps is 0; without a kind of norm it must be 1e-06",
          [](S& s) { s.k_norm_eps = 0, s.q_norm = MH_NORM_RMS; });

  const Change factor = [](S&s) { s.rotary_factor = 2; }, low = [](S&s) { s.rotary_low_freq_factor = 2; },
               high = [](S&s) { s.rotary_high_freq_factor = 8; },
               original = [](S&s) { s.rotary_original_max_position_embeddings = 64; };
  const auto with = [](const char* scaling, const Change& change) {
    return [=](S& s) { s.rotary = MH_ROTARY_HALF_SPLIT, s.rotary_scaling = scaling, change(s); };
  };
  const std::string linear = "with rotary_scaling \"linear\"", none = "without rotary_scaling";
  for (const auto& [rule, unset, change] : {std::tuple{"rotary_factor is 2; ", "1", factor},
                                            {"rotary_low_freq_factor is 2; ", "1", low},
                                            {"rotary_high_freq_factor is 8; ", "4", high},
                                            {"rotary_original_max_position_embeddings is 64; ", "8192", original}}) {
    const std::string must = std::string(" it must be ") + unset;
    refused(rule + ("without rotary" + must), change);
    refused(rule + (none + must), with(nullptr, change));
    refused(rule + (none + must), with("default", change));
    if (std::string(rule).find("rotary_factor") != 0) refused(rule + (linear + must), with("linear", change));
    EXPECT_EQ(create(with("llama3", [&then = change](S& s) { s.rotary_factor = 2, then(s); })), MH_OK)
        << mh_last_error_message();
  }
  EXPECT_EQ(create(with("linear", factor)), MH_OK) << mh_last_error_message();
  EXPECT_EQ(create([](S& s) { s.q_norm = s.k_norm = MH_NORM_RMS, s.q_norm_eps = s.k_norm_eps = 1e-3; }), MH_OK);
  EXPECT_EQ(create([](S& s) { s.value_dim = 4, s.fused_order = MH_FUSED_GROUPS; }, true), MH_OK)
      << mh_last_error_message();
}

// A layer of the layout llama, or of qwen3, whose norms the layout names.
mh_status load(const char* layout, const Change& change) {
  mh_layer_spec spec;
  mh_layer_spec_init(&spec, sizeof spec);
  spec.type = MH_FLOAT32, spec.heads = 2, spec.rotary = MH_ROTARY_HALF_SPLIT;
  change(spec);
  const mh_named_tensor tensors[] = {{"q_proj.weight", made({8, 8})}, {"k_proj.weight", made({8, 8})},
                                     {"v_proj.weight", made({8, 8})}, {"o_proj.weight", made({8, 8})},
                                     {"q_norm.weight", made({4})},    {"k_norm.weight", made({4})}};
  mh_layer* layer = nullptr;
  const mh_status status =
      mh_layer_load(layout, tensors, std::string(layout) == "qwen3" ? 6 : 4, nullptr, &spec, &layer);
  EXPECT_EQ(status == MH_OK, layer != nullptr);
  mh_layer_destroy(layer);
  return status;
}

TEST(CUnread, OfWhatALayoutFixes) {
  const auto refused = [](const char* layout, const std::string& rule, const Change& change) {
    expect_refused(load(layout, change), MH_BAD_OPTION, "load_layer: " + rule);
  };
  using S = mh_layer_spec;
  refused("llama", "layout llama has no norms of heads; the spec names one", [](S& s) { s.k_norm = MH_NORM_RMS; });
  refused("llama", "layout llama has no norms of heads; the spec gives one an eps", [](S& s) { s.q_norm_eps = 1e-3; });
  refused("qwen3", "layout qwen3 has norms of another kind than the spec names",
          [](S& s) { s.q_norm = MH_NORM_LAYER; });
  refused("llama", "layout llama stores no groups of heads; the spec names FusedOrder::groups",
          [](S& s) { s.fused_order = MH_FUSED_GROUPS; });
  refused("llama", "value_dim is 3; the tensors of layout llama have 4", [](S& s) { s.value_dim = 3; });
  refused("llama", "rotary_factor is 3; without rotary_scaling it must be 1", [](S& s) { s.rotary_factor = 3; });
  const Change agrees = [](S& s) { s.value_dim = 4; };
  EXPECT_EQ(load("llama", agrees), MH_OK) << mh_last_error_message();
  EXPECT_EQ(load("qwen3", [](S& s) { s.q_norm = s.k_norm = MH_NORM_RMS, s.q_norm_eps = 1e-3; }), MH_OK)
      << mh_last_error_message();
}

TEST(CUnread, MergeReadsItsRunOptions) {
  const mh_tensor part = made({1, 1, 2, 3}), sums = made({1, 1, 2});
  std::vector<float> rows(6), row_sums(2);
  mh_tensor out = part, lse = sums;
  out.data = rows.data(), lse.data = row_sums.data();
  mh_run_options run;
  mh_run_options_init(&run, sizeof run);
  const auto merge = [&](const mh_run_options* with) { return mh_merge(&part, &sums, &part, &sums, &out, &lse, with); };
  EXPECT_EQ(merge(nullptr), MH_OK) << mh_last_error_message();
  EXPECT_EQ(rows[0], 0.5f);
  run.threads = 3;
  EXPECT_EQ(merge(&run), MH_OK) << mh_last_error_message();
  run.threads = 0;
  expect_refused(merge(&run), MH_BAD_OPTION, "merge: threads is 0; it must be 1 to 65536");
  run.threads = 1, run.target = 9;
  expect_refused(merge(&run), MH_BAD_ARGUMENT, "merge: target is 9; it must be 0 to 6");
}

TEST(CUnread, TheScratchQueryRefusesShapesThatTheCallRefuses) {
  struct Shapes {
    mh_tensor X = made({3, 8}), Wq = made({8, 6}), Wk = made({8, 6}), Wv = made({8, 4}), Wo = made({4, 5});
    std::int64_t heads = 2;
  };
  const auto refused = [](const std::string& rule, const std::function<void(Shapes&)>& change, bool one = false) {
    Shapes s;
    if (one) s.heads = 1, s.Wo.rank = 0;
    change(s);
    std::size_t bytes = 77;
    expect_refused(mh_multi_head_attention_scratch_bytes(&s.X, &s.Wq, &s.Wk, &s.Wv, &s.Wo, s.heads, nullptr, 0, &bytes),
                   MH_SHAPE_MISMATCH, "multi_head_attention_scratch_bytes: " + rule + "; they must be equal");
    EXPECT_EQ(bytes, 77u);
    std::vector<float> room(64);
    mh_tensor output = made({3, one ? s.Wv.shape[1] : s.Wo.shape[1]});
    output.data = room.data();
    const mh_status called =
        one ? mh_self_attention(&s.X, &s.Wq, &s.Wk, &s.Wv, &output, nullptr, nullptr)
            : mh_multi_head_attention(&s.X, &s.Wq, &s.Wk, &s.Wv, &s.Wo, s.heads, &output, nullptr, nullptr, nullptr);
    expect_refused(called, MH_SHAPE_MISMATCH,
                   (one ? "self_attention: " : "multi_head_attention: ") + rule + "; they must be equal");
  };
  for (bool one : {false, true}) {
    refused(
        "Wq has input width 7, X has model_dim 8",
        [](Shapes& s) {
          s.Wq = made({7, 6});
        },
        one);
    refused(
        "Wk has input width 7, X has model_dim 8",
        [](Shapes& s) {
          s.Wk = made({7, 6});
        },
        one);
    refused(
        "Wv has input width 7, X has model_dim 8",
        [](Shapes& s) {
          s.Wv = made({7, 4});
        },
        one);
    refused(
        "Wk has output width 8, Wq has 6",
        [](Shapes& s) {
          s.Wk = made({8, 8});
        },
        one);
  }
  refused("Wo has input width 6, Wv has output width 4", [](Shapes& s) { s.Wo = made({6, 5}); });
}

// The C face refuses what no int can be, C++ the rest: with one limit.
TEST(CUnread, TheNumberOfHeadsHasOneLimit) {
  const mh_tensor X = made({3, 8}), W = made({8, 8});
  for (const std::int64_t heads : {std::int64_t{0}, std::int64_t{1} << 31, std::int64_t{1} << 40}) {
    std::size_t bytes = 0;
    expect_refused(
        mh_multi_head_attention_scratch_bytes(&X, &W, &W, &W, &W, heads, nullptr, 0, &bytes), MH_BAD_OPTION,
        "multi_head_attention_scratch_bytes: num_heads is " + std::to_string(heads) + "; it must be 1 to 2147483647");
  }
}

}  // namespace
}  // namespace multihead::testing

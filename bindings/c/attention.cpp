// SPDX-License-Identifier: Apache-2.0
// mh_attention, its weights, merge, and the questions about a call.
#include "multihead/attention.hpp"

#include "options.hpp"
#include "statistics.hpp"

namespace multihead::c {

namespace {

constexpr const char* kAttention = "attention";
constexpr const char* kWeights = "attention_weights";
constexpr const char* kMerge = "merge";
constexpr const char* kScratch = "attention_scratch_bytes";
constexpr const char* kExplain = "explain";

}  // namespace

template <>
struct StructOf<mh_attention_plan> : Described<mh_attention_plan> {
  static constexpr const char* kName = "mh_attention_plan";
};

}  // namespace multihead::c

using namespace multihead::c;

void mh_attention_options_init(mh_attention_options* options, size_t size) { init_struct(options, size); }
void mh_weights_request_init(mh_weights_request* request, size_t size) { init_struct(request, size); }
void mh_attention_shape_init(mh_attention_shape* shape, size_t size) { init_struct(shape, size); }
void mh_attention_plan_init(mh_attention_plan* plan, size_t size) { init_struct(plan, size); }

mh_status mh_attention(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                       const mh_tensor* lse, const mh_weights_request* weights, const mh_attention_options* options) {
  return mh_attention_statistics(q, k, v, out, lse, weights, nullptr, options);
}

mh_status mh_attention_statistics(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                                  const mh_tensor* lse, const mh_weights_request* weights,
                                  const mh_statistics_request* statistics, const mh_attention_options* options) {
  return guarded([&] {
    const Role q_role{kAttention, "q"};
    with_type(q_role, type_of(q_role, q), [&]<class T>() {
      const auto queries = view<const T, 4>(q_role, q);
      multihead::attention(queries, view<const T, 4>({kAttention, "k"}, k), view<const T, 4>({kAttention, "v"}, v),
                           view<T, 4>({kAttention, "out"}, out),
                           optional_view<multihead::Sum<T>, 3>({kAttention, "lse"}, lse),
                           weights_request<multihead::Sum<T>>(kAttention, weights),
                           statistics_request<multihead::Sum<T>>(kAttention, statistics),
                           attention_options(kAttention, options, queries.extent(0)));
    });
  });
}

mh_status mh_attention_weights(const mh_tensor* q, const mh_tensor* k, const mh_tensor* lse,
                               const mh_weights_request* weights, const mh_attention_options* options) {
  return guarded([&] {
    const Role q_role{kWeights, "q"};
    with_sum_type(q_role, type_of(q_role, q), [&]<class T>() {
      const auto queries = view<const T, 4>(q_role, q);
      multihead::attention_weights(
          queries, view<const T, 4>({kWeights, "k"}, k), optional_view<const T, 3>({kWeights, "lse"}, lse),
          weights_request<T>(kWeights, weights), attention_options(kWeights, options, queries.extent(0)));
    });
  });
}

mh_status mh_merge(const mh_tensor* out_a, const mh_tensor* lse_a, const mh_tensor* out_b, const mh_tensor* lse_b,
                   const mh_tensor* out, const mh_tensor* lse, const mh_run_options* run) {
  return guarded([&] {
    const multihead::LayerOptions options = run_options(kMerge, run);
    if (options.threads < 1 || options.threads > 1 << 16)
      bad_option(kMerge, "threads is " + std::to_string(options.threads) + "; it must be 1 to 65536");
    const Role role{kMerge, "out_a"};
    with_sum_type(role, type_of(role, out_a), [&]<class T>() {
      multihead::merge(view<const T, 4>(role, out_a), view<const T, 3>({kMerge, "lse_a"}, lse_a),
                       view<const T, 4>({kMerge, "out_b"}, out_b), view<const T, 3>({kMerge, "lse_b"}, lse_b),
                       view<T, 4>({kMerge, "out"}, out), view<T, 3>({kMerge, "lse"}, lse), options.target);
    });
  });
}

mh_status mh_attention_scratch_bytes(const mh_attention_shape* shape, const mh_attention_options* options,
                                     int32_t weights, size_t* bytes) {
  return mh_attention_statistics_scratch_bytes(shape, options, weights, nullptr, bytes);
}

mh_status mh_attention_statistics_scratch_bytes(const mh_attention_shape* shape, const mh_attention_options* options,
                                                int32_t weights, const mh_statistics_request* statistics,
                                                size_t* bytes) {
  return guarded([&] {
    wanted(kScratch, "shape", shape);
    wanted(kScratch, "bytes", bytes);
    check_flag(kScratch, "weights", weights);
    const mh_attention_shape read = read_struct(kScratch, shape);
    const multihead::AttentionShape of = attention_shape(kScratch, read);
    with_type({kScratch, "the call"}, read.type, [&]<class T>() {
      *bytes = multihead::attention_scratch_bytes(of, attention_options(kScratch, options, read.batch), weights == 1,
                                                  statistics_request<multihead::Sum<T>>(kScratch, statistics));
    });
  });
}

mh_status mh_explain(const mh_attention_shape* shape, const mh_attention_options* options, mh_attention_plan* plan) {
  return guarded([&] {
    wanted(kExplain, "shape", shape);
    wanted(kExplain, "plan", plan);
    size_of_struct(kExplain, *plan);
    const mh_attention_shape read = read_struct(kExplain, shape);
    const multihead::AttentionPlan found =
        multihead::explain(attention_shape(kExplain, read), attention_options(kExplain, options, read.batch));
    mh_attention_plan answer = defaults<mh_attention_plan>();
    answer.target = target_number(found.target);
    answer.row_block = found.row_block, answer.key_block = found.key_block;
    answer.tasks = found.tasks;
    answer.visible_pairs = found.visible_pairs, answer.flops = found.flops;
    answer.scratch_bytes = found.scratch_bytes;
    write_text(answer.kernel, found.kernel);
    write_text(answer.why, found.why);
    write_text(answer.score_tile, found.score_tile);
    write_text(answer.terms, found.terms);
    write_struct(kExplain, answer, plan);
  });
}

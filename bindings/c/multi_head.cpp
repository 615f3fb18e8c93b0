// SPDX-License-Identifier: Apache-2.0
// mh_self_attention and mh_multi_head_attention: from X to the output.
#include <limits>

#include "multihead/layer.hpp"
#include "options.hpp"

namespace multihead::c {

namespace {

constexpr const char* kOneHead = "self_attention";
constexpr const char* kManyHeads = "multi_head_attention";
constexpr const char* kScratch = "multi_head_attention_scratch_bytes";

int heads_of(const char* function, std::int64_t num_heads) {
  const int narrow = static_cast<int>(num_heads);
  if (narrow != num_heads)
    bad_option(function, "num_heads is " + std::to_string(num_heads) + "; it must be 1 to " +
                             std::to_string(std::numeric_limits<int>::max()));
  return narrow;
}

void check_equal(const std::string& what, std::int64_t value, const char* wanted_by, std::int64_t wanted) {
  if (value != wanted)
    shape_mismatch(kScratch, what + " " + std::to_string(value) + ", " + wanted_by + " " + std::to_string(wanted) +
                                 "; they must be equal");
}

}  // namespace

}  // namespace multihead::c

using namespace multihead::c;

mh_status mh_self_attention(const mh_tensor* X, const mh_tensor* Wq, const mh_tensor* Wk, const mh_tensor* Wv,
                            const mh_tensor* output, const mh_tensor* weights, const mh_run_options* run) {
  return guarded([&] {
    const Role role{kOneHead, "X"};
    with_sum_type(role, type_of(role, X), [&]<class T>() {
      multihead::self_attention(view<const T, 2>(role, X), view<const T, 2>({kOneHead, "Wq"}, Wq),
                                view<const T, 2>({kOneHead, "Wk"}, Wk), view<const T, 2>({kOneHead, "Wv"}, Wv),
                                view<T, 2>({kOneHead, "output"}, output), run_options(kOneHead, run),
                                optional_view<T, 2>({kOneHead, "weights"}, weights));
    });
  });
}

mh_status mh_multi_head_attention(const mh_tensor* X, const mh_tensor* Wq, const mh_tensor* Wk, const mh_tensor* Wv,
                                  const mh_tensor* Wo, int64_t num_heads, const mh_tensor* output,
                                  const mh_tensor* per_head, const mh_tensor* mean, const mh_run_options* run) {
  return guarded([&] {
    const Role role{kManyHeads, "X"};
    with_sum_type(role, type_of(role, X), [&]<class T>() {
      multihead::multi_head_attention(
          view<const T, 2>(role, X), view<const T, 2>({kManyHeads, "Wq"}, Wq), view<const T, 2>({kManyHeads, "Wk"}, Wk),
          view<const T, 2>({kManyHeads, "Wv"}, Wv), view<const T, 2>({kManyHeads, "Wo"}, Wo),
          heads_of(kManyHeads, num_heads), view<T, 2>({kManyHeads, "output"}, output), run_options(kManyHeads, run),
          {optional_view<T, 3>({kManyHeads, "weights.per_head"}, per_head),
           optional_view<T, 2>({kManyHeads, "weights.mean"}, mean)});
    });
  });
}

mh_status mh_multi_head_attention_scratch_bytes(const mh_tensor* X, const mh_tensor* Wq, const mh_tensor* Wk,
                                                const mh_tensor* Wv, const mh_tensor* Wo, int64_t num_heads,
                                                const mh_run_options* run, int32_t weights, size_t* bytes) {
  return guarded([&] {
    wanted(kScratch, "bytes", bytes);
    check_flag(kScratch, "weights", weights);
    const Role role{kScratch, "X"};
    with_sum_type(role, type_of(role, X), [&]<class T>() {
      const auto x = view<const T, 2>(role, X);
      const auto wq = view<const T, 2>({kScratch, "Wq"}, Wq), wv = view<const T, 2>({kScratch, "Wv"}, Wv);
      const auto wk = view<const T, 2>({kScratch, "Wk"}, Wk);
      if (!is_given(Wo) && num_heads != 1) missing({kScratch, "Wo"});
      const auto wo = optional_view<const T, 2>({kScratch, "Wo"}, Wo);  // none: self_attention
      check_equal("Wq has input width", wq.extent(0), "X has model_dim", x.extent(1));
      check_equal("Wk has input width", wk.extent(0), "X has model_dim", x.extent(1));
      check_equal("Wv has input width", wv.extent(0), "X has model_dim", x.extent(1));
      check_equal("Wk has output width", wk.extent(1), "Wq has", wq.extent(1));
      if (is_given(Wo)) check_equal("Wo has input width", wo.extent(0), "Wv has output width", wv.extent(1));
      *bytes = multihead::multi_head_attention_scratch_bytes(sizeof(T), x.extent(0), x.extent(1), wq.extent(1),
                                                             wv.extent(1), wo.extent(1), heads_of(kScratch, num_heads),
                                                             run_options(kScratch, run), weights == 1);
    });
  });
}

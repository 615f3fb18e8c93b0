// SPDX-License-Identifier: Apache-2.0
// mh_layer_forward and its scratch query.
#include "layer.hpp"
#include "options.hpp"
#include "statistics.hpp"

namespace multihead::c {

namespace {

constexpr const char* kForward = "MultiHeadAttention";

MultiHeadOptions layer_options(const mh_layer_options* given, std::int64_t batch) {
  MultiHeadOptions options;
  if (!given) return options;
  const mh_layer_options read = read_struct(kForward, given);
  check_reserved(kForward, "mh_layer_options.reserved", read.reserved);
  options.attention = attention_options(kForward, read.attention, batch);
  options.q_positions = optional_view<const std::int64_t, 2>({kForward, "q_positions"}, read.q_positions);
  options.k_positions = optional_view<const std::int64_t, 2>({kForward, "k_positions"}, read.k_positions);
  options.gates = filled_list<double>({kForward, "gates"}, read.gates);
  return options;
}

template <class T>
MultiHeadRequests<T> layer_requests(const mh_layer_requests* given) {
  MultiHeadRequests<T> requests;
  if (!given) return requests;
  const mh_layer_requests read = read_struct(kForward, given);
  check_reserved(kForward, "mh_layer_requests.reserved", read.reserved);
  requests.lse = optional_view<Sum<T>, 3>({kForward, "lse"}, read.lse);
  requests.heads = optional_view<Sum<T>, 4>({kForward, "heads"}, read.heads);
  requests.weights = weights_request<Sum<T>>(kForward, read.weights);
  requests.statistics = statistics_request<Sum<T>>(kForward, read.statistics);
  requests.norms = optional_view<Sum<T>, 3>({kForward, "norms"}, read.norms);
  return requests;
}

}  // namespace

template <>
struct StructOf<mh_layer_options> : Described<mh_layer_options> {
  static constexpr const char* kName = "mh_layer_options";
};

template <>
struct StructOf<mh_layer_requests> : Described<mh_layer_requests> {
  static constexpr const char* kName = "mh_layer_requests";
};

}  // namespace multihead::c

using namespace multihead::c;

void mh_layer_options_init(mh_layer_options* options, size_t size) { init_struct(options, size); }
void mh_layer_requests_init(mh_layer_requests* requests, size_t size) { init_struct(requests, size); }

mh_status mh_layer_forward(const mh_layer* layer, const mh_tensor* query, const mh_tensor* key, const mh_tensor* value,
                           const mh_tensor* output, const mh_layer_options* options,
                           const mh_layer_requests* requests) {
  return guarded([&] {
    wanted(kForward, "layer", layer);
    if (is_given(key) != is_given(value)) missing({kForward, is_given(key) ? "value" : "key"});
    std::visit(
        [&]<class T>(const multihead::MultiHeadAttention<T>& of_type) {
          const auto x = view<const T, 3>({kForward, "query"}, query);
          const bool self = !is_given(key);
          const auto keys = self ? x : view<const T, 3>({kForward, "key"}, key);
          const auto values = self ? x : view<const T, 3>({kForward, "value"}, value);
          of_type.forward(x, keys, values, view<T, 3>({kForward, "output"}, output),
                          layer_options(options, x.extent(0)), layer_requests<T>(requests));
        },
        layer->of_type);
  });
}

mh_status mh_layer_scratch_bytes(const mh_layer* layer, int64_t batch, int64_t q_len, int64_t kv_len, int32_t self,
                                 const mh_layer_options* options, const mh_layer_requests* requests, size_t* bytes) {
  return guarded([&] {
    wanted(kForward, "layer", layer);
    wanted(kForward, "bytes", bytes);
    check_flag(kForward, "self", self);
    std::visit(
        [&]<class T>(const multihead::MultiHeadAttention<T>& of_type) {
          *bytes = of_type.scratch_bytes(batch, q_len, kv_len, self == 1, layer_options(options, batch),
                                         layer_requests<T>(requests));
        },
        layer->of_type);
  });
}

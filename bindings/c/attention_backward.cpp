// SPDX-License-Identifier: Apache-2.0
// mh_attention_backward and its scratch.
#include "multihead/attention_backward.hpp"

#include "options.hpp"

namespace multihead::c {

namespace {

constexpr const char* kBackward = "attention_backward";
constexpr const char* kScratch = "attention_backward_scratch_bytes";

// A tensor of fewer axes as one of four: those that are missing are summed over.
template <class T>
View4<T> summed_view(const Role& role, const mh_tensor* tensor) {
  if (!is_given(tensor)) return {};
  check_broadcast(role, *tensor);
  mh_tensor full{tensor->data, tensor->type, 4, {1, 1, 1, 1}, {}};
  for (int axis = 0, to = 4 - tensor->rank; axis < tensor->rank; ++axis, ++to)
    full.shape[to] = tensor->shape[axis], full.strides[to] = stride_of(*tensor, axis);
  return view<T, 4>(role, &full);
}

// A list that is written, of this many elements.
std::span<double> written_list(const Role& role, const mh_tensor* tensor) {
  const std::span<const double> found = filled_list<double>(role, tensor);
  return {const_cast<double*>(found.data()), found.size()};
}

template <class T>
AttentionGradients<T> gradients_of(const mh_attention_gradients* given) {
  wanted(kBackward, "gradients", given);
  const mh_attention_gradients read = read_struct(kBackward, given);
  check_reserved(kBackward, "mh_attention_gradients.reserved", read.reserved);
  AttentionGradients<T> gradients;
  gradients.q = optional_view<T, 4>({kBackward, "gradients.q"}, read.q);
  gradients.k = optional_view<T, 4>({kBackward, "gradients.k"}, read.k);
  gradients.v = optional_view<T, 4>({kBackward, "gradients.v"}, read.v);
  gradients.bias = summed_view<Sum<T>>({kBackward, "gradients.bias"}, read.bias);
  gradients.alibi_slopes = written_list({kBackward, "gradients.alibi_slopes"}, read.alibi_slopes);
  gradients.relative_bias = optional_view<Sum<T>, 2>({kBackward, "gradients.relative_bias"}, read.relative_bias);
  gradients.sinks = written_list({kBackward, "gradients.sinks"}, read.sinks);
  const std::span<double> scale = written_list({kBackward, "gradients.scale"}, read.scale);
  if (scale.size() > 1)
    shape_mismatch(kBackward, "gradients.scale has " + std::to_string(scale.size()) + " elements; it must have 1");
  gradients.scale = scale.data();
  return gradients;
}

}  // namespace

template <>
struct StructOf<mh_attention_gradients> : Described<mh_attention_gradients> {
  static constexpr const char* kName = "mh_attention_gradients";
};

}  // namespace multihead::c

using namespace multihead::c;

void mh_attention_gradients_init(mh_attention_gradients* gradients, size_t size) { init_struct(gradients, size); }

mh_status mh_attention_backward(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                                const mh_tensor* lse, const mh_tensor* d_out, const mh_tensor* d_lse,
                                const mh_attention_gradients* gradients, const mh_attention_options* options) {
  return guarded([&] {
    const Role q_role{kBackward, "q"};
    with_type(q_role, type_of(q_role, q), [&]<class T>() {
      using Sum = multihead::Sum<T>;
      multihead::AttentionForward<T> forward;
      forward.q = view<const T, 4>(q_role, q);
      forward.k = view<const T, 4>({kBackward, "k"}, k);
      forward.v = view<const T, 4>({kBackward, "v"}, v);
      forward.out = view<const T, 4>({kBackward, "out"}, out);
      forward.lse = view<const Sum, 3>({kBackward, "lse"}, lse);
      forward.d_out = view<const T, 4>({kBackward, "d_out"}, d_out);
      forward.d_lse = optional_view<const Sum, 3>({kBackward, "d_lse"}, d_lse);
      multihead::attention_backward(forward, gradients_of<T>(gradients),
                                    attention_options(kBackward, options, forward.q.extent(0)));
    });
  });
}

mh_status mh_attention_backward_scratch_bytes(const mh_attention_shape* shape, const mh_attention_options* options,
                                              size_t* bytes) {
  return guarded([&] {
    wanted(kScratch, "shape", shape);
    wanted(kScratch, "bytes", bytes);
    const mh_attention_shape read = read_struct(kScratch, shape);
    *bytes = multihead::attention_backward_scratch_bytes(attention_shape(kScratch, read),
                                                         attention_options(kScratch, options, read.batch));
  });
}

// SPDX-License-Identifier: Apache-2.0
// The rules of MultiHeadAttention::forward.
#include "layer/layer_call.hpp"

#include <cmath>
#include <initializer_list>

namespace multihead {

namespace {

// A call keeps this many elements of one kind at most: views of stride 0 could ask for any number.
constexpr std::int64_t kMostElements = std::int64_t{1} << 44;

template <class T>
void check_sizes(const LayerCall<T>& call) {
  const MultiHeadExtents& e = call.layer.e;
  const std::int64_t widest =
      std::max({e.model_dim, e.kdim, e.vdim, e.heads * e.head_dim, e.heads * e.value_dim, e.out_dim, std::int64_t{1}});
  check_between(kLayer, "batch", call.batch, 0, kMostElements);
  const std::int64_t rows = kMostElements / widest / std::max<std::int64_t>(call.batch, 1);
  check_between(kLayer, "q_len", call.q_len, 0, rows);
  check_between(kLayer, "kv_len", call.kv_len, 0, rows);
}

template <class T>
void check_options(const LayerCall<T>& call) {
  const MultiHeadOptions& options = call.options;
  check_attention(kLayer, call.shape(call.kv_len), call.attention());
  if (!options.gates.empty())
    check_equal(kLayer, "gates", "has", static_cast<std::int64_t>(options.gates.size()), "heads is",
                call.layer.e.heads);
  for (double gate : options.gates)
    if (!std::isfinite(gate)) fail(ErrorCode::bad_option, std::string(kLayer) + ": a gate is not finite; it must be");
  if (given(call.requests.weights.norms))
    fail(ErrorCode::bad_option, std::string(kLayer) + ": weights.norms is given; the layer computes them");
}

void check_positions_of(const char* name, MatrixView<const std::int64_t> positions, std::int64_t batch,
                        std::int64_t length, std::int64_t end) {
  check_view(kLayer, operand(name, positions));
  check_equal(kLayer, name, "has batch", positions.extent(0), "the call has", batch);
  check_equal(kLayer, name, "has length", positions.extent(1), "the call has", length);
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t i = 0; i < length; ++i) check_between(kLayer, name, positions(b, i), 0, end - 1);
}

template <class T>
void check_positions(const LayerCall<T>& call) {
  const MultiHeadOptions& options = call.options;
  const bool q_given = given(options.q_positions), k_given = given(options.k_positions);
  if (!call.layer.spec.rotary) {
    if (q_given || k_given)
      fail(ErrorCode::bad_option, std::string(kLayer) + ": positions are given; the layer has no rotary embedding");
    return;
  }
  const std::int64_t end = call.layer.spec.max_positions;
  if (q_given != k_given)
    fail(ErrorCode::bad_option,
         std::string(kLayer) + ": only one of q_positions and k_positions is given; both or neither");
  if (q_given) {
    check_positions_of("q_positions", options.q_positions, call.batch, call.q_len, end);
    check_positions_of("k_positions", options.k_positions, call.batch, call.kv_len, end);
    return;
  }
  using Kind = Alignment::Kind;
  const AttentionOptions& attention = options.attention;
  const Kind kind = attention.alignment.kind();
  const bool aligned =
      kind == Kind::unnamed || kind == Kind::top_left || (kind == Kind::bottom_right && attention.lengths.empty());
  const bool packed = !attention.cu_seqlens_q.empty() || !attention.cu_seqlens_k.empty() ||
                      given(attention.q_segments) || given(attention.kv_segments);
  if (call.q_len != call.kv_len || packed || !aligned)
    fail(ErrorCode::bad_option, std::string(kLayer) +
                                    ": q_positions and k_positions are not given; with rotary they must be, unless "
                                    "every sequence has as many queries as keys and begins at position 0");
  check_between(kLayer, "the length of a sequence", call.q_len, 0, end);
}

// A tensor that the call writes, and the extents it must have.
template <class View>
void check_output(const Operand& view, const View& elements, std::initializer_list<std::int64_t> wanted,
                  std::initializer_list<const char*> axes) {
  check_view(kLayer, view);
  auto axis = axes.begin();
  int i = 0;
  for (std::int64_t extent : wanted) {
    const std::string words = std::string("has ") + *axis++;
    check_equal(kLayer, view.name, words, elements.extent(i++), "the call has", extent);
  }
  check_writable(kLayer, view);
}

template <class S>
struct Asked {
  const WeightsRequest<S>& weights;
  std::int64_t heads, rows;

  Asked(const WeightsRequest<S>& request, const AttentionShape& shape)
      : weights(request),
        heads(request.heads.empty() ? shape.heads : static_cast<std::int64_t>(request.heads.size())),
        rows(request.rows.empty() ? shape.q_len : static_cast<std::int64_t>(request.rows.size())) {}
};

template <class T>
void check_requests(const LayerCall<T>& call) {
  const MultiHeadExtents& e = call.layer.e;
  const MultiHeadRequests<T>& r = call.requests;
  const Asked<Sum<T>> asked(r.weights, call.shape(call.kv_len));
  const std::int64_t keys = call.kv_len + e.extra_keys;
  if (given(r.lse))
    check_output(operand("lse", r.lse), r.lse, {call.batch, e.heads, call.q_len}, {"batch", "heads", "q_len"});
  if (given(r.heads)) {
    check_view(kLayer, operand("heads", r.heads));
    check_contiguous(kLayer, operand("heads", r.heads));
    check_output(operand("heads", r.heads), r.heads, {call.batch, e.heads, call.q_len, e.value_dim},
                 {"batch", "heads", "q_len", "value_dim"});
  }
  const WeightsRequest<Sum<T>>& w = r.weights;
  if (given(w.per_head))
    check_output(operand("weights.per_head", w.per_head), w.per_head, {call.batch, asked.heads, asked.rows, keys},
                 {"batch", "heads", "rows", "kv_len"});
  if (given(w.mean))
    check_output(operand("weights.mean", w.mean), w.mean, {call.batch, asked.rows, keys}, {"batch", "rows", "kv_len"});
  if (given(w.norm_weighted))
    check_output(operand("weights.norm_weighted", w.norm_weighted), w.norm_weighted, {call.batch, asked.rows, keys},
                 {"batch", "rows", "kv_len"});
}

}  // namespace

template <class T>
void check_layer_shape(const LayerCall<T>& call) {
  check_sizes(call);
  check_options(call);
  check_positions(call);
}

template <class T>
void check_layer_operands(const LayerCall<T>& call) {
  const MultiHeadExtents& e = call.layer.e;
  for (const Operand& view : {operand("query", call.query), operand("key", call.key), operand("value", call.value),
                              operand("output", call.output)}) {
    check_view(kLayer, view);
    check_contiguous(kLayer, view);
  }
  check_equal(kLayer, "query", "has width", call.query.extent(2), "model_dim is", e.model_dim);
  check_equal(kLayer, "key", "has width", call.key.extent(2), "kdim is", e.kdim);
  check_equal(kLayer, "value", "has width", call.value.extent(2), "vdim is", e.vdim);
  check_equal(kLayer, "key", "has batch", call.key.extent(0), "query has", call.batch);
  check_equal(kLayer, "value", "has batch", call.value.extent(0), "query has", call.batch);
  check_equal(kLayer, "value", "has kv_len", call.value.extent(1), "key has", call.kv_len);
  check_layer_shape(call);
  check_output(operand("output", call.output), call.output, {call.batch, call.q_len, e.out_dim},
               {"batch", "q_len", "out_dim"});
  check_requests(call);
  const MultiHeadRequests<T>& r = call.requests;
  const std::array<Operand, 6> outputs{operand("output", call.output),
                                       operand("lse", r.lse),
                                       operand("heads", r.heads),
                                       operand("weights.per_head", r.weights.per_head),
                                       operand("weights.mean", r.weights.mean),
                                       operand("weights.norm_weighted", r.weights.norm_weighted)};
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    for (const Operand& input :
         {operand("query", call.query), operand("key", call.key), operand("value", call.value),
          operand("q_positions", call.options.q_positions), operand("k_positions", call.options.k_positions)})
      check_apart(kLayer, outputs[i], input);
    for (std::size_t j = 0; j < i; ++j) check_apart(kLayer, outputs[i], outputs[j]);
  }
}

template void check_layer_shape(const LayerCall<float>&);
template void check_layer_shape(const LayerCall<double>&);
template void check_layer_shape(const LayerCall<BFloat16>&);
template void check_layer_shape(const LayerCall<Float16>&);
template void check_layer_operands(const LayerCall<float>&);
template void check_layer_operands(const LayerCall<double>&);
template void check_layer_operands(const LayerCall<BFloat16>&);
template void check_layer_operands(const LayerCall<Float16>&);

}  // namespace multihead

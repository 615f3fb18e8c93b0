// SPDX-License-Identifier: Apache-2.0
// The rules of MultiHeadAttention::forward.
#include "layer/layer_call.hpp"

#include <cmath>
#include <initializer_list>
#include <utility>

#include "kernels/operands.hpp"
#include "kernels/statistics.hpp"
#include "kernels/weights.hpp"

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
  if (call.requests.statistics.any() && call.layer.e.extra_keys > 0)
    fail(ErrorCode::unsupported, std::string(kLayer) +
                                     ": statistics are asked for of a layer with extra keys (bias_k, add_zero_attn); "
                                     "they are not gathered over those");
  if (options.attention.dropout.probability > 0 && call.layer.e.extra_keys > 0)
    fail(ErrorCode::unsupported,
         std::string(kLayer) +
             ": dropout is given to a layer with extra keys (bias_k, add_zero_attn); those have "
             "no place that it could go by");
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

// Extents of what the call writes.
void check_extents(const Operand& view, std::initializer_list<std::pair<const char*, std::int64_t>> wanted) {
  check_view(kLayer, view);
  std::size_t axis = 0;
  for (const auto& [name, extent] : wanted)
    check_equal(kLayer, view.name, name, view.extents[axis++], "the call has", extent);
}

// norms: written before gates and the lists of weights are read.
template <class T>
void check_norms(const LayerCall<T>& call, const Operand& norms) {
  check_extents(norms, {{"has batch", call.batch},
                        {"has heads", call.layer.e.heads},
                        {"has kv_len", call.kv_len + call.layer.e.extra_keys}});
  check_apart_from_list(kLayer, norms, "gates", call.options.gates);
  check_apart_from_list(kLayer, norms, "weights.heads", call.requests.weights.heads);
  check_apart_from_list(kLayer, norms, "weights.rows", call.requests.weights.rows);
}

// Everything that is written, apart from everything that is read and from each other.
template <class T>
void check_outputs(const LayerCall<T>& call) {
  const MultiHeadExtents& e = call.layer.e;
  const MultiHeadRequests<T>& r = call.requests;
  const AttentionOptions& options = call.options.attention;
  const Operand output = operand("output", call.output), lse = operand("lse", r.lse), heads = operand("heads", r.heads),
                norms = operand("norms", r.norms);
  const Operand query = operand("query", call.query), key = operand("key", call.key),
                value = operand("value", call.value);
  const Operand q_positions = operand("q_positions", call.options.q_positions);
  const Operand k_positions = operand("k_positions", call.options.k_positions);
  check_extents(output, {{"has batch", call.batch}, {"has q_len", call.q_len}, {"has out_dim", e.out_dim}});
  check_output(kLayer, output, {query, key, value, q_positions, k_positions}, options);
  if (given(r.lse)) {
    check_extents(lse, {{"has batch", call.batch}, {"has heads", e.heads}, {"has q_len", call.q_len}});
    check_output(kLayer, lse, {query, key, value, q_positions, k_positions, output}, options);
  }
  if (given(r.heads)) {
    check_extents(
        heads,
        {{"has batch", call.batch}, {"has heads", e.heads}, {"has q_len", call.q_len}, {"has value_dim", e.value_dim}});
    check_contiguous(kLayer, heads);
    check_output(kLayer, heads, {query, key, value, q_positions, k_positions, output, lse}, options);
  }
  if (given(r.norms)) {
    check_norms(call, norms);
    check_output(kLayer, norms, {query, key, value, q_positions, k_positions, output, lse, heads}, options);
  }
  check_weights_outputs(kLayer, r.weights, call.shape(call.kv_len + e.extra_keys),
                        {query, key, value, q_positions, k_positions, output, lse, heads, norms}, options);
  const ListView asked_heads = view_of(r.weights.heads), asked_rows = view_of(r.weights.rows);
  const View<const double, 1> factors = view_of(call.options.gates);
  const Operand of_heads = operand("weights.heads", asked_heads), of_rows = operand("weights.rows", asked_rows);
  const Operand gates = operand("gates", factors);
  const Operand per_head = operand("weights.per_head", r.weights.per_head),
                mean = operand("weights.mean", r.weights.mean);
  const Operand weighted = operand("weights.norm_weighted", r.weights.norm_weighted);
  for (const Operand& written : {output, lse, heads, norms, per_head, mean, weighted})
    for (const Operand& read : {of_heads, of_rows, gates}) check_apart(kLayer, written, read);
  if (!r.statistics.any()) return;
  check_statistics(kLayer, r.statistics, call.shape(call.kv_len),
                   {query, key, value, q_positions, k_positions, output, lse, heads, norms, per_head, mean, weighted,
                    of_heads, of_rows, gates},
                   options, false);
  for (const Operand& written : {output, lse, heads, norms, per_head, mean, weighted})
    check_apart_from_statistics(kLayer, written, r.statistics);
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
  check_outputs(call);
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

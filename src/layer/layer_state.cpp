// SPDX-License-Identifier: Apache-2.0
// The constructor of MultiHeadAttention: every rule of its parameters, then packing.
#include "layer/layer_state.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/float_mode.hpp"
#include "layer/rotary.hpp"

namespace multihead {

std::int64_t fused_column(const MultiHeadExtents& e, FusedOrder order, Part part, std::int64_t column) {
  const std::int64_t queries = e.heads * e.head_dim, keys = e.kv_heads * e.head_dim;
  if (order == FusedOrder::blocks) return column + (part == Part::q ? 0 : part == Part::k ? queries : queries + keys);
  const std::int64_t ratio = e.heads / e.kv_heads, own = ratio * e.head_dim;
  const std::int64_t group = own + e.head_dim + e.value_dim;
  if (part == Part::q) return column / own * group + column % own;
  if (part == Part::k) return column / e.head_dim * group + own + column % e.head_dim;
  return column / e.value_dim * group + own + e.head_dim + column % e.value_dim;
}

namespace {

// What is said in the weights and the spec, checked step by step.
template <class T>
struct Reader {
  const MultiHeadSpec& spec;
  const MultiHeadWeights<T>& w;
  WeightOrder order = WeightOrder::in_out;
  MultiHeadExtents e{};
  bool fused = false;

  Reader(const MultiHeadSpec& given_spec, const MultiHeadWeights<T>& weights) : spec(given_spec), w(weights) {
    if (!spec.order)
      fail(ErrorCode::bad_option, std::string(kLayer) + ": the order of the weights is not named; it must be");
    order = *spec.order;
    check_order(kLayer, order);
    if (spec.fused_order != FusedOrder::blocks && spec.fused_order != FusedOrder::groups)
      fail(ErrorCode::bad_option, std::string(kLayer) + ": fused_order is neither blocks nor groups");
    check_between(kLayer, "heads", spec.heads, 1, std::int64_t{1} << 31);
    e.heads = spec.heads, e.kv_heads = spec.kv_heads.value_or(spec.heads);
    check_between(kLayer, "kv_heads", e.kv_heads, 1, e.heads);
    if (e.heads % e.kv_heads != 0)
      fail(ErrorCode::shape_mismatch, std::string(kLayer) + ": heads is " + std::to_string(e.heads) + ", kv_heads is " +
                                          std::to_string(e.kv_heads) + "; heads must be a multiple of kv_heads");
    fused = given(w.qkv);
    if (fused && (given(w.q) || given(w.k) || given(w.v)))
      fail(ErrorCode::bad_option, std::string(kLayer) + ": qkv is given, and one of q, k and v; it must be one or all");
    fused ? read_fused() : read_separate();
    const MatrixView<const T> out = checked("out", w.out);
    check_equal(kLayer, "out", "has input width", out.extent(0), "heads * value_dim is", e.heads * e.value_dim);
    e.out_dim = out.extent(1);
    check_size(kLayer, e.heads * e.value_dim, e.out_dim);
    check_biases();
    if (spec.scale && !std::isfinite(*spec.scale))
      fail(ErrorCode::bad_option, std::string(kLayer) + ": scale is not finite; it must be");
  }

  MatrixView<const T> checked(const char* name, const MatrixView<const T>& weight) const {
    return checked_weight(kLayer, name, weight, order);
  }

  // width = parts * dim
  static std::int64_t divided(const char* what, std::int64_t width, std::int64_t parts, const char* dim) {
    if (width % parts != 0)
      fail(ErrorCode::shape_mismatch, std::string(kLayer) + ": " + what + " has output width " + std::to_string(width) +
                                          "; " + std::to_string(parts) + " must divide it");
    check_between(kLayer, dim, width / parts, 1, kMaxHeadDim);
    return width / parts;
  }

  void read_separate() {
    const MatrixView<const T> q = checked("q", w.q), k = checked("k", w.k), v = checked("v", w.v);
    e.model_dim = q.extent(0), e.kdim = k.extent(0), e.vdim = v.extent(0);
    e.head_dim = divided("q", q.extent(1), e.heads, "head_dim");
    check_equal(kLayer, "k", "has output width", k.extent(1), "kv_heads * head_dim is", e.kv_heads * e.head_dim);
    e.value_dim = divided("v", v.extent(1), e.kv_heads, "value_dim");
    if (spec.value_dim) check_equal(kLayer, "v", "has value_dim", e.value_dim, "the spec has", *spec.value_dim);
    for (const auto& part : {q, k, v}) check_size(kLayer, part.extent(0), part.extent(1));
  }

  void read_fused() {
    const MatrixView<const T> qkv = checked("qkv", w.qkv);
    e.model_dim = e.kdim = e.vdim = qkv.extent(0);
    const std::int64_t width = qkv.extent(1);
    if (spec.value_dim) {
      check_between(kLayer, "value_dim", *spec.value_dim, 1, kMaxHeadDim);
      e.value_dim = *spec.value_dim;
      check_between(kLayer, "the output width of qkv", width, e.kv_heads * e.value_dim, kMostPacked);
      e.head_dim = divided("qkv less its values", width - e.kv_heads * e.value_dim, e.heads + e.kv_heads, "head_dim");
    } else {
      e.value_dim = e.head_dim = divided("qkv", width, e.heads + 2 * e.kv_heads, "head_dim");
    }
    check_size(kLayer, e.model_dim, width);
  }

  static void check_span(const char* name, std::span<const T> values, std::int64_t count, const char* what) {
    check_vector(kLayer, name, values, count, what);
  }

  void check_biases() const {
    const std::int64_t queries = e.heads * e.head_dim, keys = e.kv_heads * e.head_dim;
    const std::int64_t values = e.kv_heads * e.value_dim;
    check_span("q_bias", w.q_bias, queries, "heads * head_dim is");
    check_span("k_bias", w.k_bias, keys, "kv_heads * head_dim is");
    check_span("v_bias", w.v_bias, values, "kv_heads * value_dim is");
    check_span("qkv_bias", w.qkv_bias, queries + keys + values, "the width of q, k and v is");
    if (given(w.qkv_bias) && (given(w.q_bias) || given(w.k_bias) || given(w.v_bias)))
      fail(ErrorCode::bad_option,
           std::string(kLayer) + ": qkv_bias is given, and one of q_bias, k_bias and v_bias; it must be one or these");
    check_span("out_bias", w.out_bias, e.out_dim, "out_dim is");
    check_span("bias_k", w.bias_k, keys, "kv_heads * head_dim is");
    check_span("bias_v", w.bias_v, values, "kv_heads * value_dim is");
    if (given(w.bias_k) != given(w.bias_v))
      fail(ErrorCode::bad_option, std::string(kLayer) + ": only one of bias_k and bias_v is given; both or neither");
  }

  void pack(Part part, PackedLinear<T>& packed) const {
    const auto& [weight, bias, name] = part == Part::q   ? std::tuple{w.q, w.q_bias, "q"}
                                       : part == Part::k ? std::tuple{w.k, w.k_bias, "k"}
                                                         : std::tuple{w.v, w.v_bias, "v"};
    const std::int64_t out =
        part == Part::q ? e.heads * e.head_dim : e.kv_heads * (part == Part::k ? e.head_dim : e.value_dim);
    const auto in_qkv = [&](std::int64_t column) { return fused_column(e, spec.fused_order, part, column); };
    if (fused)
      pack_columns(kLayer, in_out(w.qkv, order), out, in_qkv, packed);
    else
      pack_columns(kLayer, in_out(weight, order), out, kSameColumn, packed);
    if (given(bias)) widen_into(kLayer, bias, kSameColumn, out, packed.bias);
    // Beside separate weights a fused bias is in blocks.
    const FusedOrder bias_order = fused ? spec.fused_order : FusedOrder::blocks;
    if (given(w.qkv_bias))
      widen_into(
          kLayer, w.qkv_bias, [&](std::int64_t c) { return fused_column(e, bias_order, part, c); }, out, packed.bias);
  }

  // names: of the weight, of the bias.
  void check_norm(const std::array<const char*, 2>& names, const HeadNorm& norm, std::span<const T> weight,
                  std::span<const T> bias) const {
    using Kind = HeadNorm::Kind;
    const auto refuse = [&](const std::string& rule) {
      fail(ErrorCode::bad_option, std::string(kLayer) + ": " + names[0] + rule);
    };
    check_span(names[0], weight, e.head_dim, "head_dim is");
    check_span(names[1], bias, e.head_dim, "head_dim is");
    if (norm.kind == Kind::none && (given(weight) || given(bias)))
      refuse(" is given, the spec asks for no such norm; it must name its kind");
    if (norm.kind != Kind::layer && given(bias)) refuse("_bias is given; only a layer norm has one");
    if (!(norm.eps >= 0 && norm.eps <= 1)) refuse(" has eps " + std::to_string(norm.eps) + "; it must be 0 to 1");
  }

  void pack_norm(const HeadNorm& norm, std::span<const T> weight, std::span<const T> bias,
                 PackedNorm<Sum<T>>& packed) const {
    packed.norm = norm;
    if (given(weight)) widen_into(kLayer, weight, kSameColumn, e.head_dim, packed.weight);
    if (given(bias)) widen_into(kLayer, bias, kSameColumn, e.head_dim, packed.bias);
    if (norm.kind == HeadNorm::Kind::rms_plus_1)
      for (std::int64_t i = 0; i < packed.weight.size(); ++i) packed.weight.data()[i] += 1;
  }
};

// The extra keys of each kv head, (kv_heads, keys, width): the learned one, then zeros.
template <class T>
void read_extra_rows(std::span<const T> learned, std::int64_t kv_heads, std::int64_t keys, std::int64_t width,
                     Buffer<T>& rows) {
  rows.reserve(kv_heads * keys * width, kLayer);
  std::fill_n(rows.data(), rows.size(), T(0));
  if (learned.empty()) return;
  for (std::int64_t h = 0; h < kv_heads; ++h)
    for (std::int64_t c = 0; c < width; ++c)
      rows.data()[h * keys * width + c] = learned[static_cast<std::size_t>(h * width + c)];
}

template <class State>
void make_tables(const RotaryOptions& options, State& state) {
  const std::int64_t rotary_dim = options.rotary_dim.value_or(state.e.head_dim);
  check_rotary(kLayer, rotary_dim, options);
  check_between(kLayer, "rotary_dim", rotary_dim, 2, state.e.head_dim);
  const std::int64_t rows = state.spec.max_positions, half = rotary_dim / 2;
  check_between(kLayer, "max_positions", rows, 1, kMaxPosition + 1);
  std::vector<double> inv_freq(static_cast<std::size_t>(half));
  fill_frequencies(rotary_dim, options, inv_freq.data());
  check_angles(kLayer, rows - 1, inv_freq);
  using S = std::remove_reference_t<decltype(*state.cos.data())>;
  state.rotary_half = half;
  state.cos = Buffer<S>(rows * half, kLayer), state.sin = Buffer<S>(rows * half, kLayer);
  for (std::int64_t row = 0; row < rows; ++row)
    fill_table_row<S>(row, inv_freq, View<S, 1>(state.cos.data() + row * half, {half}),
                      View<S, 1>(state.sin.data() + row * half, {half}));
  state.positions.resize(static_cast<std::size_t>(rows));
  std::iota(state.positions.begin(), state.positions.end(), std::int64_t{0});
}

}  // namespace

template <class T>
void read_layer(const MultiHeadSpec& spec, const MultiHeadWeights<T>& weights,
                typename MultiHeadAttention<T>::State& state) {
  const FloatMode mode;  // a weight that counts from 1 is rounded
  const Reader<T> reader(spec, weights);
  MultiHeadExtents& e = state.e = reader.e;
  e.extra_keys = (given(weights.bias_k) ? 1 : 0) + (spec.add_zero_attn ? 1 : 0);
  reader.check_norm({"q_norm", "q_norm_bias"}, spec.q_norm, weights.q_norm, weights.q_norm_bias);
  reader.check_norm({"k_norm", "k_norm_bias"}, spec.k_norm, weights.k_norm, weights.k_norm_bias);
  state.spec = spec;
  reader.pack_norm(spec.q_norm, weights.q_norm, weights.q_norm_bias, state.q_norm);
  reader.pack_norm(spec.k_norm, weights.k_norm, weights.k_norm_bias, state.k_norm);
  if (spec.rotary && state.positions.empty()) make_tables(*spec.rotary, state);
  reader.pack(Part::q, state.q), reader.pack(Part::k, state.k), reader.pack(Part::v, state.v);
  pack_columns(kLayer, in_out(weights.out, reader.order), e.out_dim, kSameColumn, state.out);
  if (given(weights.out_bias)) widen_into(kLayer, weights.out_bias, kSameColumn, e.out_dim, state.out.bias);
  read_extra_rows(weights.bias_k, e.kv_heads, e.extra_keys, e.head_dim, state.extra_k);
  read_extra_rows(weights.bias_v, e.kv_heads, e.extra_keys, e.value_dim, state.extra_v);
}

template <class T>
MultiHeadAttention<T>::MultiHeadAttention(const MultiHeadSpec& spec, const MultiHeadWeights<T>& weights) {
  auto state = std::make_shared<State>();
  read_layer(spec, weights, *state);
  state_ = std::move(state);
}

template <class T>
const MultiHeadExtents& MultiHeadAttention<T>::extents() const noexcept {
  return state_->e;
}

template void read_layer(const MultiHeadSpec&, const MultiHeadWeights<float>&, MultiHeadAttention<float>::State&);
template void read_layer(const MultiHeadSpec&, const MultiHeadWeights<double>&, MultiHeadAttention<double>::State&);
template class MultiHeadAttention<float>;
template class MultiHeadAttention<double>;
template class MultiHeadAttention<BFloat16>;
template class MultiHeadAttention<Float16>;

}  // namespace multihead

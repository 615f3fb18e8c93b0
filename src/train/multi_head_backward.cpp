// SPDX-License-Identifier: Apache-2.0
// MultiHeadTraining::backward: the steps of the layer in reverse, from the output's gradient to everything's.
//
//   d_concat = d_output Wo^T      d_Wo += concat^T d_output      d_head_h = gate_h d_concat_h
//   attention_backward: d_q, d_k, d_v, over the call's keys and over the extra ones, both from the lse of all
//   d_q, d_k turned back, then through their norms
//   d_W += x^T d_y      d_b += column sums of d_y      d_x = sum of d_y W^T over what reads x
#include "kernels/backward.hpp"
#include "train/checks.hpp"
#include "train/multi_head_state.hpp"
#include "train/norm_gradients.hpp"

namespace multihead {

namespace {

// One call at work.
template <class T>
struct Backward {
  using State = typename MultiHeadTraining<T>::State;
  State& state;
  View3<const T> d_output;
  const MultiHeadInputGradients<T>& inputs;
  const MultiHeadGradients<T>& gradients;
  const LayerCall<T> call = state.last_call();
  const LayerBuffers<T>& kept = state.kept;
  const MultiHeadExtents& e = state.layer.e;
  const AttentionOptions& attention = call.options.attention;
  const LayerOptions options{attention.threads, attention.parallel_for, attention.target, {}};

  // (rows, heads side by side), and (batch, kv_heads, extra_keys, width) of the extra keys.
  T *d_concat = nullptr, *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
  T *d_q_extra = nullptr, *d_k_extra = nullptr, *d_v_extra = nullptr;
  // Copies of what does not lie as a matrix.
  T *query_rows = nullptr, *key_rows = nullptr, *value_rows = nullptr, *output_rows = nullptr;
  T *d_query_rows = nullptr, *d_key_rows = nullptr, *d_value_rows = nullptr;
  T* norm_sums = nullptr;

  Backward(State& of, const View3<const T>& from, const MultiHeadInputGradients<T>& of_inputs,
           const MultiHeadGradients<T>& of_parameters)
      : state(of), d_output(from), inputs(of_inputs), gradients(of_parameters) {}
  Backward(const Backward&) = delete;

  // Calls take(place, elements) for everything in turn.
  template <class Take>
  void each(const Take& take) {
    const std::int64_t q_rows = call.batch * call.q_len, kv_rows = call.batch * call.kv_len;
    const std::int64_t extras = call.batch * e.extra_keys;
    take(d_concat, q_rows * e.heads * e.value_dim);
    take(d_q, q_rows * e.heads * e.head_dim);
    take(d_k, kv_rows * e.kv_heads * e.head_dim);
    take(d_v, kv_rows * e.kv_heads * e.value_dim);
    take(d_q_extra, extras > 0 ? q_rows * e.heads * e.head_dim : 0);
    take(d_k_extra, extras * e.kv_heads * e.head_dim);
    take(d_v_extra, extras * e.kv_heads * e.value_dim);
    const auto copy = [&](T*& place, const auto& view) {
      take(place, is_matrix(view) ? 0 : view.extent(0) * view.extent(1) * view.extent(2));
    };
    copy(query_rows, call.query), copy(output_rows, d_output), copy(d_query_rows, inputs.query);
    if (!call.self) {
      copy(key_rows, call.key), copy(value_rows, call.value);
      copy(d_key_rows, inputs.key), copy(d_value_rows, inputs.value);
    }
    const std::int64_t blocks = chunks(std::max(q_rows, kv_rows), kNormBlock);
    take(norm_sums, norm_parameters() ? 2 * blocks * e.head_dim : 0);
  }
  bool norm_parameters() const {
    return given(gradients.q_norm) || given(gradients.k_norm) || given(gradients.q_norm_bias) ||
           given(gradients.k_norm_bias);
  }
  std::size_t bytes() {
    std::size_t total = kCacheLine;
    each([&](T*&, std::int64_t elements) { total += round_to_line(static_cast<std::size_t>(elements) * sizeof(T)); });
    return total;
  }

  // x as a matrix: itself, or its copy.
  static MatrixView<const T> as_rows(const View3<const T>& x, T* copy) {
    if (is_matrix(x)) return rows_of(x);
    const std::int64_t width = x.extent(2);
    for (std::int64_t b = 0; b < x.extent(0); ++b)
      for (std::int64_t i = 0; i < x.extent(1); ++i)
        std::copy_n(x.data() + b * x.stride(0) + i * x.stride(1), width, copy + (b * x.extent(1) + i) * width);
    return {copy, {x.extent(0) * x.extent(1), width}};
  }

  MatrixView<const T> output_matrix() const { return {state.kept.concat, {q_rows(), e.heads * e.value_dim}}; }
  std::int64_t q_rows() const { return call.batch * call.q_len; }
  std::int64_t kv_rows() const { return call.batch * call.kv_len; }

  void run_products_now() const { run_in_scratch<T>(kTraining, state.products, options); }

  // ---- the output's product and the gates ----

  void through_output(MatrixView<const T> d_y) const {
    const WeightOrder order = *state.spec.order;
    state.products.clear();
    state.products.push_back(
        {d_y, turned(in_out(state.weights.out, order)), MatrixView<T>(d_concat, {q_rows(), e.heads * e.value_dim})});
    if (q_rows() > 0 && given(gradients.out))
      state.products.push_back(weight_product(output_matrix(), d_y, in_out_written(gradients.out)));
    if (q_rows() > 0 && given(gradients.out_bias)) state.products.push_back(bias_product(d_y, gradients.out_bias));
    run_products_now();
  }
  MatrixView<T> in_out_written(const MatrixView<T>& matrix) const {
    return *state.spec.order == WeightOrder::in_out ? matrix : turned(matrix);
  }

  // The heads' outputs before gates.
  const T* heads_out() const { return call.options.gates.empty() ? kept.concat : kept.heads_out; }

  void through_gates() const {
    const std::int64_t width = e.heads * e.value_dim;
    if (gradients.gates.empty() && call.options.gates.empty()) return;
    parallel_for(e.heads, options.threads, options.parallel_for, [&](int, std::int64_t h) {
      const T gate =
          call.options.gates.empty() ? T(1) : static_cast<T>(call.options.gates[static_cast<std::size_t>(h)]);
      double sum = 0;
      for (std::int64_t row = 0; row < q_rows(); ++row) {
        T* const d = d_concat + row * width + h * e.value_dim;
        const T* const out = heads_out() + (d - d_concat);
        for (std::int64_t c = 0; c < e.value_dim; ++c) {
          sum += static_cast<double>(d[c]) * static_cast<double>(out[c]);
          d[c] *= gate;
        }
      }
      if (!gradients.gates.empty()) gradients.gates[static_cast<std::size_t>(h)] = sum;
    });
  }

  // ---- attention ----

  template <class E>
  View4<E> split(E* x, std::int64_t length, std::int64_t heads, std::int64_t width) const {
    const std::int64_t row = heads * width;
    return {x, {call.batch, heads, length, width}, {length * row, width, row, 1}};
  }
  template <class E>
  View4<E> extra(E* x, std::int64_t width, bool every_entry) const {
    const std::int64_t all = e.kv_heads * e.extra_keys * width;
    return {x, {call.batch, e.kv_heads, e.extra_keys, width}, {every_entry ? all : 0, e.extra_keys * width, width, 1}};
  }
  AttentionForward<T> attention_forward() const {
    return {split<const T>(kept.q, call.q_len, e.heads, e.head_dim),
            split<const T>(kept.k, call.kv_len, e.kv_heads, e.head_dim),
            split<const T>(kept.v, call.kv_len, e.kv_heads, e.value_dim),
            split<const T>(heads_out(), call.q_len, e.heads, e.value_dim),
            View3<const T>(kept.lse, {call.batch, e.heads, call.q_len}),
            split<const T>(d_concat, call.q_len, e.heads, e.value_dim),
            {}};
  }
  AttentionGradients<T> attention_gradients() const {
    return {split<T>(d_q, call.q_len, e.heads, e.head_dim),
            split<T>(d_k, call.kv_len, e.kv_heads, e.head_dim),
            split<T>(d_v, call.kv_len, e.kv_heads, e.value_dim),
            gradients.attention_bias,
            gradients.alibi_slopes,
            gradients.relative_bias,
            gradients.sinks,
            nullptr};
  }

  // Keys of the call and extra ones share lse and out, so that each has its weights as they were and D is that of all.
  // Every row sees the extra keys: the sinks' gradients are theirs to sum.
  void through_attention() const {
    AttentionForward<T> forward = attention_forward();
    AttentionGradients<T> to = attention_gradients();
    const AttentionOptions own = call.attention();
    if (e.extra_keys > 0) to.sinks = {};
    attention_backward(forward, to, own);
    if (e.extra_keys == 0) return;
    AttentionOptions plain = LayerBuffers<T>::plain(own);
    plain.sinks = own.sinks;
    forward.k = extra<const T>(state.layer.extra_k.data(), e.head_dim, false);
    forward.v = extra<const T>(state.layer.extra_v.data(), e.value_dim, false);
    attention_backward(forward,
                       {split<T>(d_q_extra, call.q_len, e.heads, e.head_dim),
                        extra<T>(d_k_extra, e.head_dim, true),
                        extra<T>(d_v_extra, e.value_dim, true),
                        {},
                        {},
                        {},
                        gradients.sinks,
                        nullptr},
                       plain);
    const FloatMode mode;
    for (std::int64_t i = 0; i < q_rows() * e.heads * e.head_dim; ++i) d_q[i] += d_q_extra[i];
    add_extra(d_k_extra, e.head_dim, gradients.bias_k);
    add_extra(d_v_extra, e.value_dim, gradients.bias_v);
  }

  // The first extra key is the learned one.
  void add_extra(const T* d_extra, std::int64_t width, std::span<T> sum) const {
    if (sum.empty()) return;
    for (std::int64_t b = 0; b < call.batch; ++b)
      for (std::int64_t h = 0; h < e.kv_heads; ++h)
        for (std::int64_t c = 0; c < width; ++c)
          sum[static_cast<std::size_t>(h * width + c)] += d_extra[(b * e.kv_heads + h) * e.extra_keys * width + c];
  }

  // ---- heads ----

  void through_heads(T* d, const T* projected, const HeadRows& rows, const PackedNorm<T>& norm, std::span<T> d_weight,
                     std::span<T> d_bias) const {
    const KernelTable& table = choose_kernels(options.target);
    turn_heads(call, table, d, rows, true);
    const std::int64_t width = rows.heads * e.head_dim, count = call.batch * rows.length;
    if (norm.norm.kind == HeadNorm::Kind::none || count == 0) return;
    run_norm_back<T>({{projected, width, e.head_dim, count, rows.heads},
                      {d, width, e.head_dim, count, rows.heads},
                      {d, width, e.head_dim, count, rows.heads},
                      e.head_dim,
                      norm.norm.kind == HeadNorm::Kind::layer,
                      static_cast<T>(norm.norm.eps),
                      norm.weight.data_or_null(),
                      false,
                      given(d_weight) ? d_weight.data() : nullptr,
                      given(d_bias) ? d_bias.data() : nullptr},
                     options, table, norm_sums);
  }

  // ---- projections ----

  template <class E>
  static MatrixView<E> columns(const MatrixView<E>& matrix, std::int64_t first, std::int64_t count) {
    if (!given(matrix)) return {};
    return {matrix.data() + first * matrix.stride(1), {matrix.extent(0), count}, matrix.strides()};
  }

  void add_pieces(Part part) const {
    const MultiHeadWeights<T>& w = state.weights;
    const MultiHeadGradients<T>& g = gradients;
    const auto pick = [part](const auto& q, const auto& k, const auto& v) {
      return part == Part::q ? q : part == Part::k ? k : v;
    };
    const bool fused = given(w.qkv), groups = fused && state.spec.fused_order == FusedOrder::groups;
    const std::int64_t total = pick(e.heads * e.head_dim, e.kv_heads * e.head_dim, e.kv_heads * e.value_dim);
    const std::int64_t step = groups ? total / e.kv_heads : total;
    const FusedOrder bias_order = fused ? state.spec.fused_order : FusedOrder::blocks;
    const MatrixView<const T> weight = in_out(fused ? w.qkv : pick(w.q, w.k, w.v), *state.spec.order);
    const MatrixView<T> d_weight = in_out_written(fused ? g.qkv : pick(g.q, g.k, g.v));
    const std::span<T> own_bias = pick(g.q_bias, g.k_bias, g.v_bias), whole_bias = g.qkv_bias;
    for (std::int64_t first = 0; first < total; first += step) {
      const std::int64_t at = fused ? fused_column(e, state.spec.fused_order, part, first) : first;
      Piece<T> piece{part, first, step, columns(weight, at, step), columns(d_weight, at, step), {}};
      const auto size = static_cast<std::size_t>(step);
      if (given(own_bias)) piece.d_bias = own_bias.subspan(static_cast<std::size_t>(first), size);
      if (given(whole_bias))
        piece.d_bias = whole_bias.subspan(static_cast<std::size_t>(fused_column(e, bias_order, part, first)), size);
      state.pieces.push_back(piece);
    }
  }

  // The gradient of a piece's outputs.
  MatrixView<const T> d_outputs(const Piece<T>& piece) const {
    const bool q = piece.part == Part::q;
    const T* const d = q ? d_q : piece.part == Part::k ? d_k : d_v;
    const std::int64_t width =
        q ? e.heads * e.head_dim : e.kv_heads * (piece.part == Part::k ? e.head_dim : e.value_dim);
    return {d + piece.first, {q ? q_rows() : kv_rows(), piece.count}, {width, 1}};
  }

  void add_weight_gradients() const {
    const MatrixView<const T> query = as_rows(call.query, query_rows);
    const MatrixView<const T> key = call.self ? query : as_rows(call.key, key_rows);
    const MatrixView<const T> value = call.self ? query : as_rows(call.value, value_rows);
    state.products.clear();
    for (const Piece<T>& piece : state.pieces) {
      const MatrixView<const T> x = piece.part == Part::q ? query : piece.part == Part::k ? key : value;
      const MatrixView<const T> d_y = d_outputs(piece);
      if (x.extent(0) == 0) continue;
      if (given(piece.d_weight)) state.products.push_back(weight_product(x, d_y, piece.d_weight));
      if (given(piece.d_bias)) state.products.push_back(bias_product(d_y, piece.d_bias));
    }
    run_products_now();
  }

  // Of the input that the given parts read.
  void write_input(const View3<T>& d_input, T* copy, std::initializer_list<Part> parts) const {
    if (!given(d_input)) return;
    const bool whole = is_matrix(d_input);
    const MatrixView<T> to =
        whole ? rows_of(d_input) : MatrixView<T>(copy, {d_input.extent(0) * d_input.extent(1), d_input.extent(2)});
    bool add = false;
    for (const Piece<T>& piece : state.pieces) {
      if (std::find(parts.begin(), parts.end(), piece.part) == parts.end()) continue;
      state.products.assign(1, {d_outputs(piece), turned(piece.weight), to});
      state.products[0].add = add;
      run_products_now();
      add = true;
    }
    if (whole) return;
    for (std::int64_t b = 0; b < d_input.extent(0); ++b)
      for (std::int64_t i = 0; i < d_input.extent(1); ++i)
        std::copy_n(copy + (b * d_input.extent(1) + i) * d_input.extent(2), d_input.extent(2),
                    d_input.data() + b * d_input.stride(0) + i * d_input.stride(1));
  }

  void run() {
    check_training_gradients<T>(state, d_output, inputs, gradients);
    choose_kernels(options.target);
    const std::size_t need = bytes();
    Scratch memory(need - kCacheLine, state.backward_memory.of(need), kTraining);
    each([&](T*& place, std::int64_t elements) { place = memory.take<T>(static_cast<std::size_t>(elements)); });
    check_backward(kTraining, attention_forward(), attention_gradients(), call.attention());
    state.ready = false;
    state.pieces.clear();
    for (Part part : {Part::q, Part::k, Part::v}) add_pieces(part);

    through_output(as_rows(d_output, output_rows));
    through_gates();
    through_attention();
    const auto& layer = state.layer;
    through_heads(d_q, kept.q_projected, {call.q_len, e.heads, call.options.q_positions}, layer.q_norm,
                  gradients.q_norm, gradients.q_norm_bias);
    through_heads(d_k, kept.k_projected, {call.kv_len, e.kv_heads, call.options.k_positions}, layer.k_norm,
                  gradients.k_norm, gradients.k_norm_bias);
    add_weight_gradients();
    if (call.self) {
      write_input(inputs.query, d_query_rows, {Part::q, Part::k, Part::v});
    } else {
      write_input(inputs.query, d_query_rows, {Part::q});
      write_input(inputs.key, d_key_rows, {Part::k});
      write_input(inputs.value, d_value_rows, {Part::v});
    }
  }
};

}  // namespace

template <class T>
void MultiHeadTraining<T>::backward(View3<const T> d_output, const MultiHeadInputGradients<T>& inputs,
                                    const MultiHeadGradients<T>& parameters) {
  Backward<T>(*state_, d_output, inputs, parameters).run();
}

template void MultiHeadTraining<float>::backward(View3<const float>, const MultiHeadInputGradients<float>&,
                                                 const MultiHeadGradients<float>&);
template void MultiHeadTraining<double>::backward(View3<const double>, const MultiHeadInputGradients<double>&,
                                                  const MultiHeadGradients<double>&);

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// MultiHeadAttention::forward: project, norm and turn each head, attend, join the extra keys, gate, project.
#include <algorithm>
#include <array>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "layer/layer_forward.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kRowsTogether = 48;  // rows of a task of an elementwise step
// One call at work.
template <class T>
struct Forward {
  using S = Sum<T>;
  using Buffers = LayerBuffers<T>;
  const LayerCall<T>& call;
  const KernelTable& table;
  const Buffers& at;
  const MultiHeadExtents& e = call.layer.e;
  const AttentionOptions& options = call.options.attention;

  struct Projection {
    View3<const S> x;
    const PackedLinear<S>& w;
    View3<S> y;
  };

  template <class Body>
  void parallel(std::int64_t count, const Body& body) const {
    parallel_for(count, options.threads, options.parallel_for, body);
  }

  void project(std::span<const Projection> projections) const {
    bool all = true;
    for (const Projection& p : projections) all = all && is_matrix(p.x) && is_matrix(p.y);
    if (call.batch == 0) return;
    const auto rows = [all]<class E>(const View3<E>& x, std::int64_t b) {
      return all ? rows_of(x) : MatrixView<E>(x.data() + b * x.stride(0), {x.extent(1), x.extent(2)}, {x.stride(1), 1});
    };
    for (std::int64_t b = 0; b < (all ? 1 : call.batch); ++b) {
      std::array<Product<S>, 3> products;
      std::size_t count = 0;
      for (const Projection& p : projections)
        products[count++] = {rows(p.x, b), {}, rows(p.y, b), p.w.panels.data(), p.w.bias.data_or_null()};
      run_products<S>({products.data(), count}, options.threads, options.parallel_for, table, nullptr);
    }
  }

  // body(b, first, last) for blocks of rows of every sequence.
  template <class Body>
  void each_block(std::int64_t length, const Body& body) const {
    const std::int64_t blocks = chunks(length, kRowsTogether);
    parallel(call.batch * blocks, [&](int, std::int64_t index) {
      const std::int64_t first = index % blocks * kRowsTogether;
      body(index / blocks, first, std::min(first + kRowsTogether, length));
    });
  }

  // An input as the products read it: itself, or widened into memory.
  View3<const S> widened(const View3<const T>& x, [[maybe_unused]] S* memory) const {
    if constexpr (!Buffers::kNarrow) {
      return x;
    } else {
      const View3<S> wide(memory, x.extents());
      each_block(x.extent(1), [&](std::int64_t b, std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i)
          for (std::int64_t c = 0; c < x.extent(2); ++c) wide(b, i, c) = static_cast<S>(x(b, i, c));
      });
      return wide;
    }
  }

  // Norm and rotation of the heads of queries or keys, (batch, length, heads * head_dim), as they were kept where they
  // are.
  void finish_heads(S* x, S* projected, const HeadRows& rows, const PackedNorm<S>& norm) const {
    const bool normed = norm.norm.kind != HeadNorm::Kind::none;
    const std::int64_t width = rows.heads * e.head_dim;
    if (normed)
      each_block(rows.length, [&](std::int64_t b, std::int64_t first, std::int64_t last) {
        S* const from = x + (b * rows.length + first) * width;
        if (call.keep) std::copy_n(from, (last - first) * width, projected + (from - x));
        const VectorGrid<S> grid{from, width, e.head_dim, last - first, rows.heads};
        table.kernels<S>().normalise({grid, e.head_dim, norm.norm.kind == HeadNorm::Kind::layer,
                                      static_cast<S>(norm.norm.eps), norm.weight.data_or_null(),
                                      norm.bias.data_or_null()});
      });
    turn_heads(call, table, x, rows, false);
  }

  // (batch, length, heads * width) as (batch, heads, length, width).
  template <class E>
  View4<E> split(E* x, std::int64_t length, std::int64_t heads, std::int64_t width) const {
    const std::int64_t row = heads * width;
    return {x, {call.batch, heads, length, width}, {length * row, width, row, 1}};
  }
  View4<S> heads_out(S* x) const { return split<S>(x, call.q_len, e.heads, e.value_dim); }
  View4<const S> queries() const { return split<const S>(at.q, call.q_len, e.heads, e.head_dim); }
  View4<const S> keys() const { return split<const S>(at.k, call.kv_len, e.kv_heads, e.head_dim); }
  View4<const S> values() const { return split<const S>(at.v, call.kv_len, e.kv_heads, e.value_dim); }
  View4<const S> extra(const Buffer<S>& rows, std::int64_t width) const {
    return {rows.data(), {call.batch, e.kv_heads, e.extra_keys, width}, {0, e.extra_keys * width, width, 1}};
  }

  // norms[j * norm_stride] = |gate| x the length of value j after head h's rows of the out weight, for a few values.
  void value_lengths(const VectorGrid<const S>& v, std::int64_t h, S* products, S* norms) const {
    const PackedLinear<S>& out = call.layer.out;
    const std::int64_t stride = chunks(out.out, kRowBlock) * kRowBlock;
    for (std::int64_t column = 0; column < out.out; column += kRowBlock) {
      MatmulTask<S> task{};
      task.a = v.data, task.a_stride = v.row_stride;
      task.packed = out.panels.data() + column * out.in + h * e.value_dim * kRowBlock;
      task.c = products + column, task.c_stride = stride;
      task.rows = v.rows, task.inner = e.value_dim;
      task.columns = static_cast<int>(std::min<std::int64_t>(kRowBlock, out.out - column));
      table.kernels<S>().matmul(task);
    }
    table.kernels<S>().lengths({{products, stride, 0, v.rows, 1}, out.out, norms, 1});
    if (call.options.gates.empty()) return;
    const S gate = static_cast<S>(call.options.gates[static_cast<std::size_t>(h)]);
    for (std::int64_t j = 0; j < v.rows; ++j) norms[j] *= gate < 0 ? -gate : gate;
  }

  // The lengths of all values and of the extra ones.
  void all_lengths() const {
    if (!call.wants_lengths()) return;
    const std::int64_t ratio = e.heads / e.kv_heads, blocks = chunks(call.kv_len, kValuesTogether);
    const std::int64_t width = e.kv_heads * e.value_dim, lines = Buffers::product_lines(call);
    parallel(call.batch * e.heads * blocks, [&](int worker, std::int64_t index) {
      const std::int64_t b = index / blocks / e.heads, h = index / blocks % e.heads;
      const std::int64_t first = index % blocks * kValuesTogether;
      const VectorGrid<const S> v{at.v + (b * call.kv_len + first) * width + h / ratio * e.value_dim, width, 0,
                                  std::min(kValuesTogether, call.kv_len - first), 1};
      value_lengths(v, h, at.products + worker * lines, at.lengths + (b * e.heads + h) * call.kv_len + first);
    });
    parallel(e.extra_keys > 0 ? e.heads : 0, [&](int worker, std::int64_t h) {
      const S* v = call.layer.extra_v.data() + h / ratio * e.extra_keys * e.value_dim;
      value_lengths({v, e.value_dim, 0, e.extra_keys, 1}, h, at.products + worker * lines,
                    at.extra_length + h * e.extra_keys);
    });
  }

  void hand_out_norms() const {
    const View3<S>& norms = call.requests.norms;
    if (!given(norms) || norms.empty()) return;
    for (std::int64_t b = 0; b < call.batch; ++b)
      for (std::int64_t h = 0; h < e.heads; ++h) {
        const S* const own = at.lengths + (b * e.heads + h) * call.kv_len;
        for (std::int64_t j = 0; j < call.kv_len; ++j) norms(b, h, j) = own[j];
        for (std::int64_t j = 0; j < e.extra_keys; ++j)
          norms(b, h, call.kv_len + j) = at.extra_length[h * e.extra_keys + j];
      }
  }

  // The request over the keys [first, first + count) of its columns.
  WeightsRequest<S> columns(std::int64_t first, std::int64_t count, View3<const S> lengths) const {
    WeightsRequest<S> w = call.requests.weights;
    const auto cut = [&](auto& view) {
      constexpr int kLast = std::tuple_size_v<std::remove_cvref_t<decltype(view.extents())>> - 1;
      if (!given(view)) return;
      auto extents = view.extents();
      extents[kLast] = count;
      view = {view.data() + first * view.stride(kLast), extents, view.strides()};
    };
    cut(w.per_head), cut(w.mean), cut(w.norm_weighted);
    if (given(w.norm_weighted)) w.norms = lengths;
    return w;
  }
  StatisticsRequest<S> statistics(View3<const S> lengths) const {
    StatisticsRequest<S> s = call.requests.statistics;
    if (s.norm_weighted.any()) s.norms = lengths;
    return s;
  }

  void attend() const {
    AttentionOptions attend_options = call.attention();
    attend_options.scratch = {at.attention, at.attention_bytes};
    const View3<const S> lengths(at.lengths, {call.batch, e.heads, call.kv_len});
    const std::array<std::int64_t, 3> rows{call.batch, e.heads, call.q_len};
    const View3<S> lse(at.lse, rows);
    if (e.extra_keys == 0) {
      attention(queries(), keys(), values(), heads_out(at.concat), call.keep ? lse : call.requests.lse,
                columns(0, call.kv_len, lengths), statistics(lengths), attend_options);
      if (call.keep) hand_out_lse(lse);
      return;
    }
    // The sink is counted with the keys of the call; the extra ones are seen by every row.
    AttentionOptions extra_options = Buffers::plain(attend_options);
    extra_options.scratch = attend_options.scratch;
    const View3<S> extra_lse(at.extra_lse, rows);
    const View4<S> own = heads_out(at.concat), other = heads_out(at.extra);
    const View4<const S> extra_keys = extra(call.layer.extra_k, e.head_dim);
    attention(queries(), keys(), values(), own, lse, attend_options);
    attention(queries(), extra_keys, extra(call.layer.extra_v, e.value_dim), other, extra_lse, extra_options);
    merge(View4<const S>(own), View3<const S>(lse), View4<const S>(other), View3<const S>(extra_lse), own, lse,
          options.target);
    if (call.requests.weights.any()) {
      const View3<const S> norms(at.extra_length, {call.batch, e.heads, e.extra_keys}, {0, e.extra_keys, 1});
      attention_weights(queries(), keys(), View3<const S>(lse), columns(0, call.kv_len, lengths), attend_options);
      attention_weights(queries(), extra_keys, View3<const S>(lse), columns(call.kv_len, e.extra_keys, norms),
                        extra_options);
    }
    hand_out_lse(lse);
  }

  void hand_out_lse(const View3<S>& lse) const {
    if (!given(call.requests.lse)) return;
    for (std::int64_t b = 0; b < call.batch; ++b)
      for (std::int64_t h = 0; h < e.heads; ++h)
        for (std::int64_t i = 0; i < call.q_len; ++i) call.requests.lse(b, h, i) = lse(b, h, i);
  }

  // The heads' outputs handed out, then gated in place.
  void hand_out_heads() const {
    const bool asked = given(call.requests.heads) && !call.requests.heads.empty();
    if (!asked && call.options.gates.empty()) return;
    const bool keep = call.keep && !call.options.gates.empty();
    each_block(call.q_len, [&](std::int64_t b, std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i)
        for (std::int64_t h = 0; h < e.heads; ++h) {
          S* row = at.concat + ((b * call.q_len + i) * e.heads + h) * e.value_dim;
          if (asked) std::copy_n(row, e.value_dim, &call.requests.heads(b, h, i, 0));
          if (keep) std::copy_n(row, e.value_dim, at.heads_out + (row - at.concat));
          if (call.options.gates.empty()) continue;
          const S gate = static_cast<S>(call.options.gates[static_cast<std::size_t>(h)]);
          for (std::int64_t c = 0; c < e.value_dim; ++c) row[c] *= gate;
        }
    });
  }

  void write_output() const {
    const View3<const S> concat(at.concat, {call.batch, call.q_len, e.heads * e.value_dim});
    if constexpr (!Buffers::kNarrow) {
      const Projection last{concat, call.layer.out, call.output};
      project({&last, 1});
    } else {
      const View3<S> wide(at.output, {call.batch, call.q_len, e.out_dim});
      const Projection last{concat, call.layer.out, wide};
      project({&last, 1});
      each_block(call.q_len, [&](std::int64_t b, std::int64_t first, std::int64_t end) {
        for (std::int64_t i = first; i < end; ++i)
          for (std::int64_t c = 0; c < e.out_dim; ++c) call.output(b, i, c) = T(wide(b, i, c));
      });
    }
  }

  void run() const {
    const View3<const S> query = widened(call.query, at.query);
    const View3<const S> key = call.self ? query : widened(call.key, at.key);
    const View3<const S> value = call.self ? query : widened(call.value, at.value);
    const std::array<std::int64_t, 2> q_rows{call.batch, call.q_len}, kv_rows{call.batch, call.kv_len};
    const auto target = [](S* y, const std::array<std::int64_t, 2>& rows, const PackedLinear<S>& w) {
      return View3<S>(y, {rows[0], rows[1], w.out});
    };
    const auto& layer = call.layer;
    const std::array<Projection, 3> projections{Projection{query, layer.q, target(at.q, q_rows, layer.q)},
                                                Projection{key, layer.k, target(at.k, kv_rows, layer.k)},
                                                Projection{value, layer.v, target(at.v, kv_rows, layer.v)}};
    project(projections);
    finish_heads(at.q, at.q_projected, {call.q_len, e.heads, call.options.q_positions}, layer.q_norm);
    finish_heads(at.k, at.k_projected, {call.kv_len, e.kv_heads, call.options.k_positions}, layer.k_norm);
    all_lengths();
    hand_out_norms();
    attend();
    hand_out_heads();
    write_output();
  }
};

}  // namespace

template <class T>
void run_layer(const LayerCall<T>& call, const KernelTable& table, const LayerBuffers<T>& buffers) {
  Forward<T>{call, table, buffers}.run();
}

template <class T>
void MultiHeadAttention<T>::forward(View3<const T> query, View3<const T> key, View3<const T> value, View3<T> output,
                                    const MultiHeadOptions& options, const MultiHeadRequests<T>& requests) const {
  const LayerCall<T> call{*state_,
                          query,
                          key,
                          value,
                          output,
                          options,
                          requests,
                          query.extent(0),
                          query.extent(1),
                          key.extent(1),
                          is_self(query, key, value)};
  check_layer_operands(call);
  const KernelTable& table = choose_kernels(options.attention.target);
  Scratch scratch(LayerBuffers<T>::bytes(call), options.attention.scratch, kLayer);
  const LayerBuffers<T> buffers(scratch, call);
  run_layer(call, table, buffers);
}

template <class T>
std::size_t MultiHeadAttention<T>::scratch_bytes(std::int64_t batch, std::int64_t q_len, std::int64_t kv_len, bool self,
                                                 const MultiHeadOptions& options,
                                                 const MultiHeadRequests<T>& requests) const {
  const LayerCall<T> call{*state_, {}, {}, {}, {}, options, requests, batch, q_len, kv_len, self};
  check_layer_shape(call);
  return LayerBuffers<T>::bytes(call) + kCacheLine;
}

#define MULTIHEAD_INSTANTIATE(T)                                                                            \
  template void MultiHeadAttention<T>::forward(View3<const T>, View3<const T>, View3<const T>, View3<T>,    \
                                               const MultiHeadOptions&, const MultiHeadRequests<T>&) const; \
  template std::size_t MultiHeadAttention<T>::scratch_bytes(                                                \
      std::int64_t, std::int64_t, std::int64_t, bool, const MultiHeadOptions&, const MultiHeadRequests<T>&) const;
template void run_layer(const LayerCall<float>&, const KernelTable&, const LayerBuffers<float>&);
template void run_layer(const LayerCall<double>&, const KernelTable&, const LayerBuffers<double>&);
MULTIHEAD_INSTANTIATE(float)
MULTIHEAD_INSTANTIATE(double)
MULTIHEAD_INSTANTIATE(BFloat16)
MULTIHEAD_INSTANTIATE(Float16)
#undef MULTIHEAD_INSTANTIATE

}  // namespace multihead

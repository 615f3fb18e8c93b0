// SPDX-License-Identifier: Apache-2.0
// MultiHeadAttention::forward: project, norm and turn each head, attend, join the extra keys, gate, project.
#include <algorithm>
#include <array>
#include <cstring>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "kernels/weights.hpp"
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

  template <class Body>
  void parallel(std::int64_t count, const Body& body) const {
    parallel_for(count, options.threads, options.parallel_for, body);
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

  // The products of the inputs. Queries and keys that are normed or turned are left as sums.
  void project_inputs() const {
    const auto& layer = call.layer;
    std::array<Projection<T, S>, 2> sums{};
    std::array<Projection<T, T>, 3> stored{};
    std::size_t summed = 0, kept = 0;
    const auto add = [&](const View3<const T>& x, const PackedLinear<T>& w, T* y, bool finished) {
      const std::int64_t batch = x.extent(0), length = x.extent(1);
      if (kNarrow<T> && finished)
        sums[summed++] = {x, &w, View3<S>(reinterpret_cast<S*>(y), {batch, length, w.out})};
      else
        stored[kept++] = {x, &w, View3<T>(y, {batch, length, w.out})};
    };
    add(call.query, layer.q, at.q, call.finishes(layer.spec.q_norm));
    add(call.key, layer.k, at.k, call.finishes(layer.spec.k_norm));
    add(call.value, layer.v, at.v, false);
    project<T, S>(call, table, std::span(sums).first(summed), at.task_scratch);
    project<T, T>(call, table, std::span(stored).first(kept), at.task_scratch);
  }

  // Norm and rotation of the heads of queries or keys, (batch, length, heads * head_dim), as they were kept where they
  // are.
  void finish_heads(T* x, T* projected, const HeadRows& rows, const PackedNorm<S>& norm) const {
    if (!call.finishes(norm.norm)) return;
    S* const sums = reinterpret_cast<S*>(x);
    const std::int64_t width = rows.heads * e.head_dim;
    if (norm.norm.kind != HeadNorm::Kind::none)
      each_block(rows.length, [&](std::int64_t b, std::int64_t first, std::int64_t last) {
        S* const from = sums + (b * rows.length + first) * width;
        if constexpr (!kNarrow<T>)
          if (call.keep) std::copy_n(from, (last - first) * width, projected + (from - sums));
        const VectorGrid<S> grid{from, width, e.head_dim, last - first, rows.heads};
        table.kernels<S>().normalise({grid, e.head_dim, norm.norm.kind == HeadNorm::Kind::layer,
                                      static_cast<S>(norm.norm.eps), norm.weight.data_or_null(),
                                      norm.bias.data_or_null()});
      });
    turn_heads(call, table, sums, rows, false);
    if constexpr (kNarrow<T>) store_heads(sums, rows);
  }

  // Rows of sums rounded to T where they are, each to the first bytes of its own: heads are read before the bytes that
  // they take are written, through memory of their own, since the two types may not be read as each other.
  void store_heads(S* sums, const HeadRows& rows) const {
    const std::int64_t width = rows.heads * e.head_dim;
    each_block(rows.length, [&](std::int64_t b, std::int64_t first, std::int64_t last) {
      std::array<T, kMaxHeadDim> head;
      for (std::int64_t row = b * rows.length + first; row < b * rows.length + last; ++row)
        for (std::int64_t c = 0; c < width; c += e.head_dim) {
          const S* const from = sums + row * width + c;
          for (std::int64_t i = 0; i < e.head_dim; ++i) head[static_cast<std::size_t>(i)] = T(from[i]);
          std::memcpy(reinterpret_cast<std::byte*>(sums + row * width) + c * std::int64_t{sizeof(T)}, head.data(),
                      static_cast<std::size_t>(e.head_dim) * sizeof(T));
        }
    });
  }

  // (batch, length, heads * width), rows a step apart, as (batch, heads, length, width).
  template <class E>
  View4<E> split(E* x, std::int64_t length, std::int64_t heads, std::int64_t width, std::int64_t step) const {
    return {x, {call.batch, heads, length, width}, {length * step, width, step, 1}};
  }
  View4<T> heads_out(T* x) const { return split<T>(x, call.q_len, e.heads, e.value_dim, e.heads * e.value_dim); }
  View4<const T> queries() const {
    return split<const T>(at.q, call.q_len, e.heads, e.head_dim, Buffers::q_step(call));
  }
  View4<const T> keys() const {
    return split<const T>(at.k, call.kv_len, e.kv_heads, e.head_dim, Buffers::k_step(call));
  }
  View4<const T> values() const {
    return split<const T>(at.v, call.kv_len, e.kv_heads, e.value_dim, e.kv_heads * e.value_dim);
  }
  View4<const T> extra(const Buffer<T>& rows, std::int64_t width) const {
    return {rows.data(), {call.batch, e.kv_heads, e.extra_keys, width}, {0, e.extra_keys * width, width, 1}};
  }

  // norms[j] = |gate| x the length of value j after head h's rows of the out weight, for a few values. memory:
  // length_elements().
  void value_lengths(const VectorGrid<const T>& v, std::int64_t h, S* memory, S* norms) const {
    const PackedLinear<T>& out = call.layer.out;
    const std::int64_t stride = chunks(out.out, kRowBlock) * kRowBlock;
    MatmulTask<S> task{};
    task.rows = v.rows, task.inner = e.value_dim, task.c_stride = stride;
    if constexpr (kNarrow<T>) {
      S* const wide = memory + stride * kValuesTogether;
      for (std::int64_t j = 0; j < v.rows; ++j)
        for (std::int64_t c = 0; c < e.value_dim; ++c)
          wide[j * e.value_dim + c] = static_cast<S>(v.data[j * v.row_stride + c]);
      task.a = wide, task.a_stride = e.value_dim;
    } else {
      task.a = v.data, task.a_stride = v.row_stride;
    }
    for (std::int64_t column = 0; column < out.out; column += kRowBlock) {
      if constexpr (kNarrow<T>) {
        S* const lines = memory + stride * kValuesTogether + e.value_dim * kValuesTogether;
        widen_lines(out, column, h * e.value_dim, e.value_dim, lines);
        task.packed = lines;
      } else {
        task.packed = out.panels.data() + column * out.in + h * e.value_dim * kRowBlock;
      }
      task.c = memory + column;
      task.columns = static_cast<int>(std::min<std::int64_t>(kRowBlock, out.out - column));
      table.kernels<S>().matmul(task);
    }
    table.kernels<S>().lengths({{memory, stride, 0, v.rows, 1}, out.out, norms, 1});
    if (call.options.gates.empty()) return;
    const S gate = static_cast<S>(call.options.gates[static_cast<std::size_t>(h)]);
    for (std::int64_t j = 0; j < v.rows; ++j) norms[j] *= gate < 0 ? -gate : gate;
  }

  // The lengths of all values and of the extra ones.
  void all_lengths() const {
    if (!call.wants_lengths()) return;
    const std::int64_t ratio = e.heads / e.kv_heads, blocks = chunks(call.kv_len, kValuesTogether);
    const std::int64_t width = e.kv_heads * e.value_dim, each = Buffers::length_elements(call);
    parallel(call.batch * e.heads * blocks, [&](int worker, std::int64_t index) {
      const std::int64_t b = index / blocks / e.heads, h = index / blocks % e.heads;
      const std::int64_t first = index % blocks * kValuesTogether;
      const VectorGrid<const T> v{at.v + (b * call.kv_len + first) * width + h / ratio * e.value_dim, width, 0,
                                  std::min(kValuesTogether, call.kv_len - first), 1};
      value_lengths(v, h, at.of_lengths + worker * each, at.lengths + (b * e.heads + h) * call.kv_len + first);
    });
    parallel(e.extra_keys > 0 ? e.heads : 0, [&](int worker, std::int64_t h) {
      const T* v = call.layer.extra_v.data() + h / ratio * e.extra_keys * e.value_dim;
      value_lengths({v, e.value_dim, 0, e.extra_keys, 1}, h, at.of_lengths + worker * each,
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
    attend_options.scratch = {at.task_scratch, at.task_bytes};
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
    const View4<const T> extra_keys = extra(call.layer.extra_k, e.head_dim);
    attention(queries(), keys(), values(), heads_out(at.concat), lse, attend_options);
    attention(queries(), extra_keys, extra(call.layer.extra_v, e.value_dim), heads_out(at.extra), extra_lse,
              extra_options);
    join(lse, extra_lse);
    if (call.requests.weights.any()) {
      const View3<const S> norms(at.extra_length, {call.batch, e.heads, e.extra_keys}, {0, e.extra_keys, 1});
      attention_weights(queries(), keys(), View3<const S>(lse), columns(0, call.kv_len, lengths), attend_options);
      attention_weights(queries(), extra_keys, View3<const S>(lse), columns(call.kv_len, e.extra_keys, norms),
                        extra_options);
    }
    hand_out_lse(lse);
  }

  // Attention over the keys of the call and over the extra ones becomes attention over both, in the place of the first.
  void join(const View3<S>& lse, const View3<S>& extra_lse) const {
    if constexpr (!kNarrow<T>) {
      const View4<T> own = heads_out(at.concat), other = heads_out(at.extra);
      merge(View4<const T>(own), View3<const S>(lse), View4<const T>(other), View3<const S>(extra_lse), own, lse,
            options.target);
    } else {
      each_block(call.q_len, [&](std::int64_t b, std::int64_t first, std::int64_t last) {
        std::array<S, kMaxHeadDim> own, other;
        for (std::int64_t i = first; i < last; ++i)
          for (std::int64_t h = 0; h < e.heads; ++h) {
            T* const row = at.concat + ((b * call.q_len + i) * e.heads + h) * e.value_dim;
            const T* const of_extra = at.extra + (row - at.concat);
            const auto widen = [](T x) { return static_cast<S>(x); };
            std::transform(row, row + e.value_dim, own.data(), widen);
            std::transform(of_extra, of_extra + e.value_dim, other.data(), widen);
            MergeTask<S> task{};
            task.out_a = task.out = own.data(), task.out_b = other.data();
            task.lse_a = task.lse = &lse(b, h, i), task.lse_b = &extra_lse(b, h, i);
            task.rows = 1, task.value_dim = e.value_dim;
            table.kernels<S>().merge(task);
            std::transform(own.data(), own.data() + e.value_dim, row, [](S x) { return T(x); });
          }
      });
    }
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
          T* const row = at.concat + ((b * call.q_len + i) * e.heads + h) * e.value_dim;
          if (asked)
            std::transform(row, row + e.value_dim, &call.requests.heads(b, h, i, 0),
                           [](T x) { return static_cast<S>(x); });
          if (keep) std::copy_n(row, e.value_dim, at.heads_out + (row - at.concat));
          if (call.options.gates.empty()) continue;
          const S gate = static_cast<S>(call.options.gates[static_cast<std::size_t>(h)]);
          for (std::int64_t c = 0; c < e.value_dim; ++c) row[c] = T(static_cast<S>(row[c]) * gate);
        }
    });
  }

  void write_output() const {
    const View3<const T> concat(at.concat, {call.batch, call.q_len, e.heads * e.value_dim});
    const Projection<T, T> last{concat, &call.layer.out, call.output};
    project<T, T>(call, table, {&last, 1}, at.task_scratch);
  }

  void run() const {
    const auto& layer = call.layer;
    project_inputs();
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

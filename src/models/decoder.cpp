// SPDX-License-Identifier: Apache-2.0
// Decoder::forward: embeddings, then layer by layer attention over the cache and the feed-forward layer.
#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "models/decoder_call.hpp"
#include "models/factors.hpp"
#include "models/workspace.hpp"

namespace multihead {

namespace {

// As of an encoder: rows that go through the feed-forward layer together, for each thread.
constexpr std::int64_t kRowsTogether = 96;

using FloatRows = MatrixView<float>;

FloatRows rows_of(const FloatRows& x, std::int64_t first, std::int64_t count) {
  return {x.data() + first * x.stride(0), {count, x.extent(1)}, x.strides()};
}

void copy_rows(const FloatRows& from, const FloatRows& to) {
  for (std::int64_t row = 0; row < from.extent(0); ++row)
    std::copy_n(from.data() + row * from.stride(0), from.extent(1), to.data() + row * to.stride(0));
}

// x += y, both contiguous.
void add(const FloatRows& x, const FloatRows& y) {
  float* const to = x.data();
  const float* const from = y.data();
  const std::int64_t count = x.extent(0) * x.extent(1);
  for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
}

void multiply(const FloatRows& x, const FloatRows& y) {
  float* const to = x.data();
  const float* const from = y.data();
  const std::int64_t count = x.extent(0) * x.extent(1);
  for (std::int64_t i = 0; i < count; ++i) to[i] *= from[i];
}

template <class To, class From>
void convert(const From* from, std::int64_t count, To* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<To>(from[i]);
}

// The heads of packed rows, `first` channels from their begin: (1, heads, tokens, head_dim).
template <class T>
View4<T> heads_of(T* rows, std::int64_t width, std::int64_t first, std::array<std::int64_t, 3> extents) {
  const auto [heads, tokens, head_dim] = extents;
  return {rows + first, {1, heads, tokens, head_dim}, {0, head_dim, width, 1}};
}

// One call at work. x: the hidden states; n: their norms, then what a layer adds to them. T: what products multiply.
template <class T>
struct Forward {
  const DecoderCall& call;
  const DecoderMaps<T>& maps;
  FloatRows x, n, qkv, a;               // a: what the heads give
  FloatRows middle, gate;               // between the feed-forward layer's products
  FloatRows cos, sin;                   // of each token's position
  float* narrow;                        // qkv and a once more, in the cache's type where that is of two bytes
  T* entering;                          // what enters a product, where T is not float
  std::vector<std::int64_t> rows = {};  // 0, 1, 2 .., of cos and sin
  const DecoderExtents& e = call.decoder.e;
  const std::int64_t tokens = call.tokens();
  const std::int64_t q_width = e.heads * e.head_dim, kv_width = e.kv_heads * e.head_dim;

  void embed() const {
    const float* const learned = call.decoder.positions ? call.decoder.positions->values().data() : nullptr;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto at = static_cast<std::size_t>(t);
      const float* const word = call.decoder.words.values().data() + call.input.ids[at] * e.model_dim;
      float* const to = x.data() + t * e.model_dim;
      const float* const position = learned ? learned + call.positions[at] * e.model_dim : nullptr;
      for (std::int64_t c = 0; c < e.model_dim; ++c) to[c] = position ? word[c] + position[c] : word[c];
    }
    if (!learned) rotary_tables(call.positions, e.head_dim, call.decoder.rotary, cos, sin);
  }

  void rotate(std::int64_t first, std::int64_t heads) const {
    const View4<float> view = heads_of(qkv.data(), qkv.extent(1), first, {heads, tokens, e.head_dim});
    rotary_embedding(view, cos, sin, MatrixView<const std::int64_t>(rows.data(), {1, tokens}),
                     call.decoder.rotary.pairing, view, call.options.target);
  }

  AttentionOptions attention_options(std::size_t layer) const {
    AttentionOptions options;
    options.scale = maps.layers[layer].scale;
    options.causal = true;
    options.cu_seqlens_q = call.starts;
    options.threads = call.options.threads;
    options.parallel_for = call.options.parallel_for;
    options.target = call.options.target;
    return options;
  }

  // Appends the keys and values that lie at from, and attends with its queries.
  template <class S>
  void through_cache(S* from, S* to, std::size_t layer) const {
    const std::int64_t width = qkv.extent(1), number = static_cast<std::int64_t>(layer);
    const auto part = [&](std::int64_t first, std::int64_t heads) {
      return View4<const S>(heads_of(from, width, first, {heads, tokens, e.head_dim}));
    };
    call.cache.append(number, call.input.sequences, part(q_width, e.kv_heads), part(q_width + kv_width, e.kv_heads),
                      call.starts);
    attention(part(0, e.heads), call.cache, number, call.input.sequences,
              heads_of(to, q_width, 0, {e.heads, tokens, e.head_dim}), {}, attention_options(layer));
  }

  template <class S>
  void through_narrow_cache(std::size_t layer) const {
    S* const from = reinterpret_cast<S*>(narrow);
    S* const to = from + tokens * qkv.extent(1);
    convert(qkv.data(), tokens * qkv.extent(1), from);
    through_cache(from, to, layer);
    convert(to, tokens * q_width, a.data());
  }

  MatrixView<const T> entered(const FloatRows& from) const { return factors(from, entering); }

  void product(const Linear<T>& map, const MatrixView<const T>& from, const FloatRows& to,
               Activation activation = Activation::none) const {
    map.forward(from, to, activation, call.options);
  }

  void attend(std::size_t layer) const {
    const DecoderLayer<T>& weights = maps.layers[layer];
    row_norm(x, {}, weights.attention_norm.row_norm(), n, call.options);
    product(weights.qkv, entered(n), qkv);
    if (!call.decoder.positions) rotate(0, e.heads), rotate(q_width, e.kv_heads);
    switch (call.cache.spec().storage) {
      case KvStorage::bfloat16:
        through_narrow_cache<BFloat16>(layer);
        break;
      case KvStorage::float16:
        through_narrow_cache<Float16>(layer);
        break;
      default:
        through_cache(qkv.data(), a.data(), layer);
    }
    product(weights.out, entered(a), n);
    add(x, n);
  }

  void feed_forward(const DecoderLayer<T>& weights) const {
    row_norm(x, {}, weights.feed_norm.row_norm(), n, call.options);
    for (std::int64_t first = 0; first < tokens; first += middle.extent(0)) {
      const std::int64_t count = std::min(middle.extent(0), tokens - first);
      const FloatRows in = rows_of(n, first, count), between = rows_of(middle, 0, count);
      const MatrixView<const T> from = entered(in);
      product(weights.up, from, between, weights.gate ? Activation::none : call.decoder.activation);
      if (weights.gate) {
        const FloatRows gates = rows_of(gate, 0, count);
        product(*weights.gate, from, gates, call.decoder.activation);
        multiply(between, gates);
      }
      product(weights.down, entered(between), in);  // the rows' norms are used up
    }
    add(x, n);
  }

  void hand_out(std::int64_t layer) const {
    const View3<float>& states = call.requests.hidden_states;
    if (states.data())
      copy_rows(x, {states.data() + layer * states.stride(0),
                    {states.extent(1), states.extent(2)},
                    {states.stride(1), states.stride(2)}});
  }

  void speak() const {
    const RowNorm<float> norm = call.decoder.last_norm.row_norm();
    if (call.requests.every_logit.data()) {
      row_norm(x, {}, norm, n, call.options);
      product(maps.head, entered(n), call.requests.every_logit);
    }
    if (!call.logits.data()) return;
    const auto sequences = static_cast<std::int64_t>(call.starts.size()) - 1;
    const FloatRows last = rows_of(n, 0, sequences);
    for (std::int64_t s = 0; s < sequences; ++s)
      copy_rows(rows_of(x, call.starts[static_cast<std::size_t>(s) + 1] - 1, 1), rows_of(last, s, 1));
    row_norm(last, {}, norm, last, call.options);
    product(maps.head, entered(last), call.logits);
  }

  void run() {
    rows.resize(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
    {
      const DefaultArithmetic arithmetic;
      embed();
      hand_out(0);
      for (std::size_t layer = 0; layer < maps.layers.size(); ++layer) {
        attend(layer);
        feed_forward(maps.layers[layer]);
        hand_out(static_cast<std::int64_t>(layer) + 1);
      }
      speak();
    }
  }
};

// In two bytes, in floats.
std::int64_t narrow_floats(KvStorage storage, std::int64_t count) {
  return storage == KvStorage::bfloat16 || storage == KvStorage::float16 ? (count + 1) / 2 : 0;
}

template <class T>
void run(const DecoderCall& call, const DecoderMaps<T>& maps) {
  const DecoderExtents& e = call.decoder.e;
  const std::int64_t tokens = call.tokens(), q_width = e.heads * e.head_dim;
  const std::int64_t qkv_width = q_width + 2 * e.kv_heads * e.head_dim;
  const std::int64_t together = std::min(tokens, kRowsTogether * call.options.threads);
  const std::int64_t gated = maps.layers.front().gate ? together : 0, turned = call.decoder.positions ? 0 : tokens;
  const std::int64_t narrow = narrow_floats(call.cache.spec().storage, tokens * (qkv_width + q_width));
  const std::int64_t entering =
      kRounds<T> ? std::max(tokens * std::max(e.model_dim, q_width), together * e.intermediate_dim) : 0;
  Workspace workspace(kDecoder, static_cast<std::size_t>(tokens * (2 * e.model_dim + qkv_width + q_width) +
                                                         (together + gated) * e.intermediate_dim + turned * e.head_dim +
                                                         narrow + Workspace::floats_of<T>(entering)));
  const FloatRows x = workspace.take(tokens, e.model_dim), n = workspace.take(tokens, e.model_dim);
  const FloatRows qkv = workspace.take(tokens, qkv_width), a = workspace.take(tokens, q_width);
  const FloatRows middle = workspace.take(together, e.intermediate_dim),
                  gate = workspace.take(gated, e.intermediate_dim);
  const FloatRows cos = workspace.take(turned, e.head_dim / 2), sin = workspace.take(turned, e.head_dim / 2);
  float* const in_cache_type = workspace.take(1, narrow).data();
  Forward<T>{call, maps, x, n, qkv, a, middle, gate, cos, sin, in_cache_type, workspace.take<T>(1, entering).data()}
      .run();
}

}  // namespace

void Decoder::forward(const DecoderInput& input, KvCache& cache, MatrixView<float> logits, const LayerOptions& options,
                      const DecoderRequests& requests) const {
  DecoderCall call{*state_, input, cache, logits, options, requests};
  call.check();
  if (call.tokens() == 0) return;
  try {
    std::visit([&](const auto& maps) { run(call, maps); }, state_->maps);
  } catch (...) {
    call.undo();
    throw;
  }
}

}  // namespace multihead

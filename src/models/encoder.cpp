// SPDX-License-Identifier: Apache-2.0
// Encoder::forward: embeddings, then layer by layer attention, feed-forward, and the norms of their sums.
#include <algorithm>
#include <array>
#include <cmath>

#include "models/encoder_call.hpp"
#include "models/factors.hpp"
#include "models/workspace.hpp"

namespace multihead {

namespace {

// Rows of the feed-forward layer that go through it together, for each thread: enough to make up for reading the
// weights again, few enough for what lies between its two products to stay in the second-level cache.
constexpr std::int64_t kRowsTogether = 96;

template <class T>
MatrixView<T> rows_of(const MatrixView<T>& x, std::int64_t first, std::int64_t count) {
  return {x.data() + first * x.stride(0), {count, x.extent(1)}, x.strides()};
}

void copy_rows(const MatrixView<float>& from, const MatrixView<float>& to) {
  for (std::int64_t row = 0; row < from.extent(0); ++row)
    std::copy_n(from.data() + row * from.stride(0), from.extent(1), to.data() + row * to.stride(0));
}

// One call at work. x: the hidden states; a: what attention, then the feed-forward layer, add to them. T: what products
// multiply; entering and attended are x and what attention gives in it, where it is not float.
template <class T>
struct Forward {
  const EncoderCall& call;
  const std::vector<EncoderLayer<T>>& layers;
  std::span<double> gates;  // (heads) of the layer at hand, or empty
  MatrixView<float> x, a;
  MatrixView<T> middle, entering, attended;
  const EncoderExtents& e = call.encoder.e;

  // word + position + token type, in this order.
  void sum_embeddings(std::int64_t first, std::int64_t last) const {
    const std::optional<std::int64_t> pad = call.encoder.pad;
    const float* const types = call.encoder.types ? call.encoder.types->values().data() : nullptr;
    std::int64_t next = pad ? *pad + 1 : 0;
    for (std::int64_t t = first; t < last; ++t) {
      const auto at = static_cast<std::size_t>(t);
      const std::int64_t id = call.input.ids[at], place = pad && id == *pad ? id : next++;
      const std::int64_t type = call.input.token_types.empty() ? 0 : call.input.token_types[at];
      const float* const word = call.encoder.words.values().data() + id * e.model_dim;
      const float* const position = call.encoder.positions.values().data() + place * e.model_dim;
      float* const to = x.data() + t * e.model_dim;
      if (types)
        for (std::int64_t c = 0; c < e.model_dim; ++c) to[c] = word[c] + position[c] + types[type * e.model_dim + c];
      else
        for (std::int64_t c = 0; c < e.model_dim; ++c) to[c] = word[c] + position[c];
    }
  }

  void embed() const {
    {
      const DefaultArithmetic arithmetic;
      each_sequence(call.input.cu_seqlens, call.tokens(),
                    [&](std::int64_t first, std::int64_t last) { sum_embeddings(first, last); });
    }
    row_norm(x, {}, call.encoder.embedding_norm.norm(), x, call.options);
    hand_out(0);
  }

  void attend(std::size_t layer) const {
    const std::int64_t tokens = call.tokens();
    MultiHeadOptions options;
    options.attention.threads = call.options.threads;
    options.attention.parallel_for = call.options.parallel_for;
    options.attention.target = call.options.target;
    options.attention.cu_seqlens_q = options.attention.cu_seqlens_k = call.input.cu_seqlens;
    for (std::size_t head = 0; head < gates.size(); ++head)
      gates[head] = call.input.gates(static_cast<std::int64_t>(layer), static_cast<std::int64_t>(head));
    options.gates = gates;
    MultiHeadRequests<T> requests;
    if (!call.requests.weights.empty()) requests.weights = call.requests.weights[layer];
    if (!call.requests.statistics.empty()) requests.statistics = call.requests.statistics[layer];
    if (const View3<float>& norms = call.requests.norms; norms.data())
      requests.norms = {
          norms.data() + static_cast<std::int64_t>(layer) * norms.stride(0), {1, e.heads, tokens}, norms.strides()};
    const std::array extents{std::int64_t{1}, tokens, e.model_dim};
    const View3<const T> from(factors(x, entering.data()).data(), extents);
    if constexpr (kRounds<T>) {
      layers[layer].attention.forward(from, View3<T>(attended.data(), extents), options, requests);
      for (std::int64_t i = 0; i < tokens * e.model_dim; ++i) a.data()[i] = static_cast<float>(attended.data()[i]);
    } else {
      layers[layer].attention.forward(from, View3<float>(a.data(), extents), options, requests);
    }
  }

  void feed_forward(const EncoderLayer<T>& layer) const {
    for (std::int64_t first = 0; first < call.tokens(); first += middle.extent(0)) {
      const std::int64_t count = std::min(middle.extent(0), call.tokens() - first);
      const MatrixView<float> in = rows_of(x, first, count), out = rows_of(a, first, count);
      const MatrixView<T> between = rows_of(middle, 0, count);
      row_norm(out, in, layer.attention_norm.norm(), in, call.options);
      layer.up.forward(factors(in, entering.data()), between, call.encoder.activation, call.options);
      layer.down.forward(between, out, Activation::none, call.options);
      row_norm(out, in, layer.output_norm.norm(), in, call.options);
    }
  }

  void hand_out(std::int64_t layer) const {
    const View3<float>& states = call.requests.hidden_states;
    if (states.data())
      copy_rows(x, {states.data() + layer * states.stride(0),
                    {states.extent(1), states.extent(2)},
                    {states.stride(1), states.stride(2)}});
  }

  void run() const {
    embed();
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      attend(layer);
      feed_forward(layers[layer]);
      hand_out(static_cast<std::int64_t>(layer) + 1);
    }
    copy_rows(x, call.output);
  }
};

template <class T>
void run(const EncoderCall& call, const std::vector<EncoderLayer<T>>& layers) {
  const EncoderExtents& e = call.encoder.e;
  const std::int64_t tokens = call.tokens(), width = e.model_dim;
  const std::int64_t together = std::min(tokens, kRowsTogether * call.options.threads);
  const std::int64_t rounded = kRounds<T> ? tokens : 0;
  const auto gates = static_cast<std::size_t>(call.input.gates.data() ? e.heads : 0);
  Workspace workspace(kEncoder, Workspace::floats_of(gates) +
                                    static_cast<std::size_t>(2 * tokens * width +
                                                             Workspace::floats_of<T>(together * e.intermediate_dim) +
                                                             2 * Workspace::floats_of<T>(rounded * width)));
  const std::span<double> layer_gates = workspace.take_doubles(gates);
  const MatrixView<float> x = workspace.take(tokens, width), a = workspace.take(tokens, width);
  const MatrixView<T> middle = workspace.take<T>(together, e.intermediate_dim);
  const MatrixView<T> entering = workspace.take<T>(rounded, width), attended = workspace.take<T>(rounded, width);
  Forward<T>{call, layers, layer_gates, x, a, middle, entering, attended}.run();
}

}  // namespace

void Encoder::forward(const EncoderInput& input, MatrixView<float> output, const LayerOptions& options,
                      const EncoderRequests& requests) const {
  const EncoderCall call{*state_, input, output, options, requests};
  call.check();
  if (call.tokens() == 0) return;
  std::visit([&](const auto& layers) { run(call, layers); }, state_->layers);
}

void mean_pool(MatrixView<const float> hidden, std::span<const std::int64_t> cu_seqlens, bool normalise,
               MatrixView<float> vectors) {
  constexpr const char* kName = "mean_pool";
  const std::int64_t width = hidden.extent(1);
  check_starts(kName, cu_seqlens, hidden.extent(0));
  const std::int64_t sequences = cu_seqlens.empty() ? 1 : static_cast<std::int64_t>(cu_seqlens.size()) - 1;
  Written to("vectors", vectors);
  check_written(kName, to, std::array{sequences, width});
  check_rows(kName, to);
  Written from("hidden", hidden);
  check_written(kName, from, std::array{hidden.extent(0), width});
  check_rows(kName, from);
  check_apart(kName, to, "hidden", from.begin, from.end);
  check_apart(kName, to, "cu_seqlens", cu_seqlens.data(), cu_seqlens.data() + cu_seqlens.size());
  const DefaultArithmetic arithmetic;
  std::int64_t sequence = 0;
  each_sequence(cu_seqlens, hidden.extent(0), [&](std::int64_t first, std::int64_t last) {
    float* const sum = vectors.data() + sequence++ * vectors.stride(0);
    std::fill_n(sum, width, 0.0f);
    for (std::int64_t row = first; row < last; ++row)
      for (std::int64_t c = 0; c < width; ++c) sum[c] += hidden.data()[row * hidden.stride(0) + c];
    double squares = 0;
    for (std::int64_t c = 0; c < width && last > first; ++c) {
      sum[c] /= static_cast<float>(last - first);
      squares += static_cast<double>(sum[c]) * sum[c];
    }
    if (!normalise || squares == 0) return;
    const double length = std::sqrt(squares);
    for (std::int64_t c = 0; c < width; ++c) sum[c] = static_cast<float>(sum[c] / length);
  });
}

}  // namespace multihead

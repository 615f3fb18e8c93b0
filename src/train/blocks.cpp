// SPDX-License-Identifier: Apache-2.0
// Pre-norm parts on the residual stream: each keeps what its gradient reads.
#include "train/blocks.hpp"

#include <cmath>

namespace multihead {

namespace {

template <class T>
std::span<T> row(Matrix<T>& vector) {
  return {vector.data(), static_cast<std::size_t>(vector.columns())};
}
template <class T>
std::span<const T> row(const Matrix<T>& vector) {
  return vector.values();
}

template <class T>
View3<T> batch_of_one(MatrixView<T> rows) {
  return {rows.data(), {1, rows.extent(0), rows.extent(1)}, {0, rows.stride(0), 1}};
}

// The gradient of what drop_elements() was asked for: d itself where nothing is dropped.
template <class T>
MatrixView<const T> dropped(const Dropout& dropout, MatrixView<T> d, Reused<T>& memory) {
  if (dropout.probability == 0) return d;
  const MatrixView<T> kept = memory.matrix(d.extent(0), d.extent(1));
  drop_elements<T>(dropout, d, kept);
  return kept;
}

}  // namespace

template <class T>
Parameter<T>& Drawn<T>::table(const std::string& name, std::int64_t rows, std::int64_t columns, double deviation) {
  Parameter<T>& added = parameters.add(name, rows, columns, true);
  fill_normal(added.value, deviation, random);
  return added;
}

template <class T>
Parameter<T>& Drawn<T>::weight(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t blocks) {
  Parameter<T>& added = parameters.add(name, in, out * blocks, true);
  fill_uniform(added.value, std::sqrt(6.0 / static_cast<double>(in + out)), random);
  return added;
}

template <class T>
Parameter<T>& Drawn<T>::vector(const std::string& name, std::int64_t width, T value) {
  Parameter<T>& added = parameters.add(name, 1, width, false);
  for (std::int64_t i = 0; i < width; ++i) added.value(0, i) = value;
  return added;
}

template <class T>
NormPart<T>::NormPart(Drawn<T> drawn, const std::string& name, std::int64_t width)
    : weight_(drawn.vector(name + ".weight", width, 1)), bias_(drawn.vector(name + ".bias", width, 0)) {}

template <class T>
RowNorm<T> NormPart<T>::norm() const {
  return {{HeadNorm::Kind::layer, 1e-5}, row(std::as_const(weight_.value)), row(std::as_const(bias_.value))};
}

template <class T>
MatrixView<T> NormPart<T>::forward(MatrixView<const T> x, const Pass& pass) {
  x_ = x;
  const MatrixView<T> y = y_.matrix(x.extent(0), x.extent(1));
  row_norm(x, {}, norm(), y, pass.layer);
  return y;
}

template <class T>
void NormPart<T>::backward(MatrixView<T> d, const Pass& pass) {
  row_norm_backward<T>(x_, norm(), d, {d, row(weight_.gradient), row(bias_.gradient)}, pass.layer);
}

template <class T>
AttentionPartOf<T>::AttentionPartOf(Drawn<T> drawn, const std::string& name, const TransformerConfig& config,
                                    bool cross)
    : norm_(drawn, name + ".norm", config.model_dim),
      in_([&] {
        const std::int64_t width = config.model_dim;
        std::vector<Parameter<T>*> in;
        for (const char* part : cross ? std::vector{".q", ".k", ".v"} : std::vector{".qkv"}) {
          const std::int64_t blocks = cross ? 1 : 3;
          in.push_back(&drawn.weight(name + part + ".weight", width, width, blocks));
          in.push_back(&drawn.vector(name + part + ".bias", width * blocks, 0));
        }
        return in;
      }()),
      out_(drawn.weight(name + ".out.weight", config.model_dim, config.model_dim)),
      out_bias_(drawn.vector(name + ".out.bias", config.model_dim, 0)),
      attention_(spec(config), weights()) {}

template <class T>
MultiHeadSpec AttentionPartOf<T>::spec(const TransformerConfig& config) const {
  MultiHeadSpec wanted;
  wanted.heads = config.heads;
  wanted.order = WeightOrder::in_out;
  if (config.rotary && in_.size() == 2) wanted.rotary = RotaryOptions{};
  wanted.max_positions = config.max_tokens;
  return wanted;
}

template <class T>
MultiHeadWeights<T> AttentionPartOf<T>::weights() const {
  MultiHeadWeights<T> read;
  const auto matrix = [&](std::size_t i) -> const Matrix<T>& { return in_[i]->value; };
  if (in_.size() == 2) {
    read.qkv = matrix(0), read.qkv_bias = row(matrix(1));
  } else {
    read.q = matrix(0), read.k = matrix(2), read.v = matrix(4);
    read.q_bias = row(matrix(1)), read.k_bias = row(matrix(3)), read.v_bias = row(matrix(5));
  }
  read.out = std::as_const(out_.value), read.out_bias = row(std::as_const(out_bias_.value));
  return read;
}

template <class T>
MultiHeadGradients<T> AttentionPartOf<T>::gradients() const {
  MultiHeadGradients<T> added;
  const auto matrix = [&](std::size_t i) -> Matrix<T>& { return in_[i]->gradient; };
  if (in_.size() == 2) {
    added.qkv = matrix(0), added.qkv_bias = row(matrix(1));
  } else {
    added.q = matrix(0), added.k = matrix(2), added.v = matrix(4);
    added.q_bias = row(matrix(1)), added.k_bias = row(matrix(3)), added.v_bias = row(matrix(5));
  }
  added.out = out_.gradient, added.out_bias = row(out_bias_.gradient);
  return added;
}

template <class T>
MatrixView<const T> AttentionPartOf<T>::forward(MatrixView<const T> x, MatrixView<const T> memory,
                                                const Sequences& sequences, std::uint32_t stream, const Pass& pass) {
  const MatrixView<const T> normed = norm_.forward(x, pass);
  const MatrixView<T> y = y_.matrix(x.extent(0), x.extent(1));
  stream_ = stream;
  options_ = {};
  AttentionOptions& options = options_.attention;
  options.cu_seqlens_q = sequences.cu_q, options.cu_seqlens_k = sequences.cu_k;
  options.causal = sequences.causal;
  options.dropout = pass.drop(stream);
  options.threads = pass.layer.threads, options.target = pass.layer.target;
  options_.q_positions = options_.k_positions = sequences.positions;
  options_.gates = sequences.gates;
  MultiHeadRequests<T> requests;
  if constexpr (std::is_same_v<T, float>)
    if (const View3<float>& wanted = sequences.weights; wanted.data())
      requests.weights.per_head = View4<float>(wanted.data(), {1, wanted.extent(0), wanted.extent(1), wanted.extent(2)},
                                               {0, wanted.stride(0), wanted.stride(1), wanted.stride(2)});
  if (in_.size() == 2)
    attention_.forward(batch_of_one(normed), batch_of_one(y), options_, requests);
  else
    attention_.forward(batch_of_one(normed), batch_of_one(memory), batch_of_one(memory), batch_of_one(y), options_,
                       requests);
  if (pass.dropout > 0) drop_elements<T>(pass.drop(stream + 1), y, y);
  add_to(x, y);
  return y;
}

template <class T>
void AttentionPartOf<T>::backward(MatrixView<T> d, MatrixView<T> d_memory, Workspace<T>& workspace, const Pass& pass) {
  const MatrixView<const T> d_part = dropped(pass.drop(stream_ + 1), d, workspace.part);
  const MatrixView<T> d_normed = workspace.normed.matrix(d.extent(0), d.extent(1));
  MultiHeadInputGradients<T> inputs;
  inputs.query = batch_of_one(d_normed);
  if (in_.size() == 2) {
    attention_.backward(batch_of_one(d_part), inputs, gradients());
  } else {
    const std::int64_t keys = d_memory.extent(0), width = d_memory.extent(1);
    const MatrixView<T> d_key = workspace.memory.matrix(keys, width), d_value = workspace.hidden.matrix(keys, width);
    inputs.key = batch_of_one(d_key), inputs.value = batch_of_one(d_value);
    attention_.backward(batch_of_one(d_part), inputs, gradients());
    add_to<T>(d_key, d_memory);
    add_to<T>(d_value, d_memory);
  }
  norm_.backward(d_normed, pass);
  add_to<T>(d_normed, d);
}

template <class T>
FeedForwardPart<T>::FeedForwardPart(Drawn<T> drawn, const std::string& name, const TransformerConfig& config)
    : activation_(config.activation),
      norm_(drawn, name + ".norm", config.model_dim),
      up_(drawn.weight(name + ".up.weight", config.model_dim, config.feed_forward)),
      up_bias_(drawn.vector(name + ".up.bias", config.feed_forward, 0)),
      down_(drawn.weight(name + ".down.weight", config.feed_forward, config.model_dim)),
      down_bias_(drawn.vector(name + ".down.bias", config.model_dim, 0)) {}

template <class T>
MatrixView<const T> FeedForwardPart<T>::forward(MatrixView<const T> x, std::uint32_t stream, const Pass& pass) {
  const std::int64_t rows = x.extent(0);
  stream_ = stream;
  normed_ = norm_.forward(x, pass);
  const MatrixView<T> hidden = hidden_.matrix(rows, up_.value.columns());
  const MatrixView<T> active = active_.matrix(rows, up_.value.columns());
  const MatrixView<T> y = y_.matrix(rows, x.extent(1));
  linear<T>(normed_, std::as_const(up_.value), WeightOrder::in_out, row(std::as_const(up_bias_.value)), hidden,
            pass.layer);
  activate<T>(activation_, hidden, active, pass.layer);
  linear<T>(active, std::as_const(down_.value), WeightOrder::in_out, row(std::as_const(down_bias_.value)), y,
            pass.layer);
  if (pass.dropout > 0) drop_elements<T>(pass.drop(stream), y, y);
  add_to(x, y);
  return y;
}

template <class T>
void FeedForwardPart<T>::backward(MatrixView<T> d, Workspace<T>& workspace, const Pass& pass) {
  const std::int64_t rows = d.extent(0), width = up_.value.columns();
  const MatrixView<const T> d_part = dropped(pass.drop(stream_), d, workspace.part);
  const MatrixView<T> d_hidden = workspace.hidden.matrix(rows, width);
  const MatrixView<T> d_normed = workspace.normed.matrix(rows, d.extent(1));
  linear_backward<T>(active_.matrix(rows, width), std::as_const(down_.value), WeightOrder::in_out, d_part,
                     {d_hidden, down_.gradient, row(down_bias_.gradient)}, pass.layer);
  activation_backward<T>(activation_, hidden_.matrix(rows, width), d_hidden, d_hidden, pass.layer);
  linear_backward<T>(normed_, std::as_const(up_.value), WeightOrder::in_out, d_hidden,
                     {d_normed, up_.gradient, row(up_bias_.gradient)}, pass.layer);
  norm_.backward(d_normed, pass);
  add_to<T>(d_normed, d);
}

template <class T>
EmbeddingPart<T>::EmbeddingPart(Drawn<T> drawn, const std::string& name, const TransformerConfig& config,
                                const std::vector<std::int64_t>& vocab)
    : learned_positions_(!config.rotary) {
  for (std::size_t i = 0; i < vocab.size(); ++i)
    tables_.push_back(
        &drawn.table(name + ".embedding." + std::to_string(i), vocab[i], config.model_dim, config.embedding_deviation));
  if (learned_positions_)
    tables_.push_back(
        &drawn.table(name + ".positions", config.max_tokens, config.model_dim, config.embedding_deviation));
}

template <class T>
MatrixView<const T> EmbeddingPart<T>::forward(MatrixView<const std::int64_t> ids,
                                              std::span<const std::int64_t> positions) {
  ids_ = ids, positions_ = positions;
  const std::int64_t tokens = ids.extent(1), width = tables_[0]->value.columns();
  const MatrixView<T> y = y_.matrix(tokens, width), one = one_.matrix(tokens, width);
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    const bool of_tokens = static_cast<std::int64_t>(i) < ids.extent(0);
    embedding<T>(
        std::as_const(tables_[i]->value),
        of_tokens ? std::span(ids.data() + static_cast<std::int64_t>(i) * ids.stride(0), positions.size()) : positions,
        i == 0 ? y : one);
    if (i > 0) add_to<T>(one, y);
  }
  return y;
}

template <class T>
void EmbeddingPart<T>::backward(MatrixView<const T> d) {
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    const bool of_tokens = static_cast<std::int64_t>(i) < ids_.extent(0);
    embedding_backward<T>(
        of_tokens ? std::span(ids_.data() + static_cast<std::int64_t>(i) * ids_.stride(0), positions_.size())
                  : positions_,
        d, tables_[i]->gradient);
  }
}

template struct Drawn<float>;
template struct Drawn<double>;
template class NormPart<float>;
template class NormPart<double>;
template class AttentionPartOf<float>;
template class AttentionPartOf<double>;
template class FeedForwardPart<float>;
template class FeedForwardPart<double>;
template class EmbeddingPart<float>;
template class EmbeddingPart<double>;

}  // namespace multihead

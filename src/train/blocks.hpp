// SPDX-License-Identifier: Apache-2.0
// The parts of a Transformer's stack: tables of embeddings, attention, feed-forward, norms; forward and backward.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "multihead/gradients.hpp"
#include "multihead/multi_head_training.hpp"
#include "multihead/transformer.hpp"
#include "train/reused.hpp"

namespace multihead {

// What one call of a model asks of every part.
struct Pass {
  LayerOptions layer;  // threads and target
  double dropout = 0;  // 0 where the model does not train
  std::uint64_t seed = 0;

  Dropout drop(std::uint32_t stream) const { return {dropout, seed, stream}; }
};

// What gradients pass through on their way down, shared by all parts.
template <class T>
struct Workspace {
  Reused<T> part, normed, hidden, memory;
};

// Adds parameters that are drawn as they are added.
template <class T>
struct Drawn {
  Parameters<T>& parameters;
  Random& random;

  Parameter<T>& table(const std::string& name, std::int64_t rows, std::int64_t columns, double deviation);
  // columns: blocks of that many matrices of their own, (in, out) each.
  Parameter<T>& weight(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t blocks = 1);
  Parameter<T>& vector(const std::string& name, std::int64_t width, T value);
};

// A layer norm with the rows it was given.
template <class T>
class NormPart {
 public:
  NormPart(Drawn<T> drawn, const std::string& name, std::int64_t width);
  // norm(x), which stays valid until the next call; x must stay as it is until backward.
  MatrixView<T> forward(MatrixView<const T> x, const Pass& pass);
  // d becomes the gradient of x.
  void backward(MatrixView<T> d, const Pass& pass);

 private:
  RowNorm<T> norm() const;
  Parameter<T>&weight_, &bias_;
  MatrixView<const T> x_;
  Reused<T> y_;
};

// The packed sequences that one attention goes over, and what is asked of it.
struct Sequences {
  std::span<const std::int64_t> cu_q, cu_k;
  bool causal = false;
  MatrixView<const std::int64_t> positions = {};  // (1, queries), with rotary
  std::span<const double> gates = {};
  View3<float> weights = {};  // (heads, queries, keys), on request
};

// y = x + drop(attention(norm(x))), or with keys and values from memory.
template <class T>
class AttentionPartOf {
 public:
  AttentionPartOf(Drawn<T> drawn, const std::string& name, const TransformerConfig& config, bool cross);
  // stream and stream + 1 are its dropouts'. memory without extents: self-attention.
  MatrixView<const T> forward(MatrixView<const T> x, MatrixView<const T> memory, const Sequences& sequences,
                              std::uint32_t stream, const Pass& pass);
  // d, the gradient of y, becomes that of x; the memory's is added to d_memory.
  void backward(MatrixView<T> d, MatrixView<T> d_memory, Workspace<T>& workspace, const Pass& pass);

 private:
  MultiHeadSpec spec(const TransformerConfig& config) const;
  MultiHeadWeights<T> weights() const;
  MultiHeadGradients<T> gradients() const;

  NormPart<T> norm_;
  std::vector<Parameter<T>*> in_;  // qkv and its bias, or q, k, v and theirs
  Parameter<T>&out_, &out_bias_;
  MultiHeadTraining<T> attention_;
  MultiHeadOptions options_;
  std::uint32_t stream_ = 0;
  Reused<T> y_;
};

// y = x + drop(W2 activation(W1 norm(x) + b1) + b2).
template <class T>
class FeedForwardPart {
 public:
  FeedForwardPart(Drawn<T> drawn, const std::string& name, const TransformerConfig& config);
  MatrixView<const T> forward(MatrixView<const T> x, std::uint32_t stream, const Pass& pass);
  void backward(MatrixView<T> d, Workspace<T>& workspace, const Pass& pass);

 private:
  Activation activation_;
  NormPart<T> norm_;
  Parameter<T>&up_, &up_bias_, &down_, &down_bias_;
  std::uint32_t stream_ = 0;
  MatrixView<const T> normed_;
  Reused<T> hidden_, active_, y_;
};

// Tables of tokens and, without rotary, of positions.
template <class T>
class EmbeddingPart {
 public:
  EmbeddingPart(Drawn<T> drawn, const std::string& name, const TransformerConfig& config,
                const std::vector<std::int64_t>& vocab);
  // ids and positions must stay as they are until backward.
  MatrixView<const T> forward(MatrixView<const std::int64_t> ids, std::span<const std::int64_t> positions);
  void backward(MatrixView<const T> d);
  Parameter<T>& table(std::size_t i) { return *tables_[i]; }

 private:
  std::vector<Parameter<T>*> tables_;  // positions last
  bool learned_positions_;
  MatrixView<const std::int64_t> ids_;
  std::span<const std::int64_t> positions_;
  Reused<T> y_, one_;
};

extern template struct Drawn<float>;
extern template struct Drawn<double>;
extern template class NormPart<float>;
extern template class NormPart<double>;
extern template class AttentionPartOf<float>;
extern template class AttentionPartOf<double>;
extern template class FeedForwardPart<float>;
extern template class FeedForwardPart<double>;
extern template class EmbeddingPart<float>;
extern template class EmbeddingPart<double>;

}  // namespace multihead

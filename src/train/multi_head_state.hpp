// SPDX-License-Identifier: Apache-2.0
// What a MultiHeadTraining holds: its parameters' views, and what the last forward keeps for backward.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "layer/layer_forward.hpp"
#include "multihead/multi_head_training.hpp"
#include "train/products.hpp"

namespace multihead {

constexpr const char* kTraining = "MultiHeadTraining";

// Memory that grows and is used again.
class Arena {
 public:
  std::span<std::byte> of(std::size_t bytes) {
    if (size_ < bytes) {
      size_ = 0;
      bytes_.reset();
      bytes_.reset(new (std::nothrow) std::byte[bytes]);
      if (!bytes_)
        fail(ErrorCode::out_of_memory,
             std::string(kTraining) + ": activations of " + std::to_string(bytes) + " bytes cannot be allocated");
      size_ = bytes;
    }
    return {bytes_.get(), size_};
  }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_ = 0;
};

// Neighbouring outputs of the projections that are neighbours in the weight too: one product.
template <class T>
struct Piece {
  Part part;
  std::int64_t first, count;   // of the part's outputs
  MatrixView<const T> weight;  // (in, count)
  MatrixView<T> d_weight;      // likewise, or without extents
  std::span<T> d_bias;         // (count) or empty
};

template <class T>
struct MultiHeadTraining<T>::State {
  MultiHeadSpec spec;
  MultiHeadWeights<T> weights;
  typename MultiHeadAttention<T>::State layer;  // as the weights were at the last forward
  Arena forward_memory, backward_memory;
  std::vector<Piece<T>> pieces;  // of a backward pass
  std::vector<Product<T>> products;

  // Of the last forward.
  bool ready = false;  // for backward
  View3<const T> query, key, value;
  MultiHeadOptions options;
  LayerBuffers<T> kept{};

  const MultiHeadRequests<T> nothing = {};
  LayerCall<T> last_call() const {
    return {layer,
            query,
            key,
            value,
            {},
            options,
            nothing,
            query.extent(0),
            query.extent(1),
            key.extent(1),
            is_self(query, key, value),
            true};
  }
};

// The rules of backward(), apart from those of its attention.
template <class T>
void check_training_gradients(const typename MultiHeadTraining<T>::State& state, const View3<const T>& d_output,
                              const MultiHeadInputGradients<T>& inputs, const MultiHeadGradients<T>& parameters);

}  // namespace multihead

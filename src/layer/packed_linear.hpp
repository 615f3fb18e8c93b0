// SPDX-License-Identifier: Apache-2.0
// Weights as products read them: checked and packed, biases widened to the type of the sums. For MultiHeadAttention and
// Linear.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/matmul.hpp"
#include "layer/buffer.hpp"
#include "multihead/multi_head_attention.hpp"

namespace multihead {

constexpr std::int64_t kMostPacked = std::int64_t{1} << 44;  // elements

// y = x W + bias. P: the type the weights are packed in.
template <class P>
struct PackedLinear {
  std::int64_t in = 0, out = 0;
  Buffer<P> panels;     // as Product::packed
  Buffer<Sum<P>> bias;  // (out) or empty
};

// The weight in [in, out] terms.
template <class T>
MatrixView<const T> in_out(MatrixView<const T> weight, WeightOrder order) {
  if (order == WeightOrder::in_out) return weight;
  return {weight.data(), {weight.extent(1), weight.extent(0)}, {weight.stride(1), weight.stride(0)}};
}

// Neither of the two.
void check_order(const char* function, WeightOrder order);
// A weight is given and one of its axes contiguous.
void check_weight(const char* function, const Operand& weight);
// A weight of that size can be packed.
void check_size(const char* function, std::int64_t in, std::int64_t out);

template <class T>
MatrixView<const T> checked_weight(const char* function, const char* name, const MatrixView<const T>& weight,
                                   WeightOrder order) {
  if (!given(weight))
    fail(ErrorCode::shape_mismatch, std::string(function) + ": " + name + " is not given; it must be");
  check_weight(function, operand(name, weight));
  return in_out(weight, order);
}

// A vector, where it is given, has count elements: "what" names the count.
template <class T>
void check_vector(const char* function, const char* name, std::span<const T> values, std::int64_t count,
                  const char* what) {
  if (!given(values)) return;
  check_view(function, operand(name, View<const T, 1>(values.data(), {static_cast<std::int64_t>(values.size())})));
  check_equal(function, name, "has", static_cast<std::int64_t>(values.size()), what, count);
}

constexpr auto kSameColumn = [](std::int64_t column) { return column; };

// Element i becomes values[column(i)].
template <class T, class Column>
void widen_into(const char* function, std::span<const T> values, const Column& column, std::int64_t count,
                Buffer<Sum<T>>& wide) {
  wide.reserve(count, function);
  for (std::int64_t i = 0; i < count; ++i)
    wide.data()[i] = static_cast<Sum<T>>(values[static_cast<std::size_t>(column(i))]);
}

// Blocks of kRowBlock columns, each a line of kRowBlock an input channel, or of kRowBlock pairs of two, zeros after the
// last column and after the last channel. Column c of the result is column(c) of the weight. A block is written line by
// line, so that its columns, where they are the contiguous axis or not, are read as kRowBlock streams side by side.
// Memory of the right size is used again.
template <class T, class P, class Column>
void pack_columns(const char* function, MatrixView<const T> weight, std::int64_t out, const Column& column,
                  PackedLinear<P>& packed) {
  const std::int64_t in = weight.extent(0), step = weight.stride(0);
  packed.in = in, packed.out = out;
  constexpr std::int64_t kTogether = kPackedTogether<P>, kLine = kRowBlock * kTogether;
  const std::int64_t padded = packed_inner<P>(in);
  packed.panels.reserve(packed_elements<P>(in, out), function);
  for (std::int64_t first = 0; first < out && in > 0; first += kRowBlock) {
    const std::int64_t columns = std::min<std::int64_t>(kRowBlock, out - first);
    std::array<const T*, kRowBlock> from;
    for (std::int64_t c = 0; c < columns; ++c)
      from[static_cast<std::size_t>(c)] = weight.data() + column(first + c) * weight.stride(1);
    P* line = packed.panels.data() + first * padded;
    P* const end = line + kRowBlock * padded;
    for (std::int64_t i = 0; i < in; i += kTogether, line += kLine) {
      const std::int64_t together = std::min(kTogether, in - i);
      for (std::int64_t c = 0; c < columns; ++c) {
        P* const to = line + c * kTogether;
        for (std::int64_t j = 0; j < together; ++j)
          to[j] = static_cast<P>(from[static_cast<std::size_t>(c)][(i + j) * step]);
        std::fill(to + together, to + kTogether, P(0));
      }
      std::fill(line + columns * kTogether, line + kLine, P(0));
    }
    std::fill(line, end, P(0));
  }
}

// Input channels [first, first + count) of the block of columns that begins at `column`, as sums: (count, kRowBlock).
template <class P>
void widen_lines(const PackedLinear<P>& packed, std::int64_t column, std::int64_t first, std::int64_t count,
                 Sum<P>* lines) {
  const P* const block = packed.panels.data() + column * packed_inner<P>(packed.in);
  for (std::int64_t i = first; i < first + count; ++i)
    for (std::int64_t c = 0; c < kRowBlock; ++c) *lines++ = static_cast<Sum<P>>(block[packed_place<P>(i, c)]);
}

}  // namespace multihead

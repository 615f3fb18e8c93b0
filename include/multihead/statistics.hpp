// SPDX-License-Identifier: Apache-2.0
// What rows of weights are like, without the weights: statistics that attention() takes while keys pass.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include "multihead/tensor.hpp"

namespace multihead {

// What a request may hold. kMostStatisticsReach bounds keys, offsets to either side, and bins: it lies beyond every
// position.
constexpr std::int64_t kMostStatisticsClasses = 32, kMostTopKeys = 64;
constexpr std::int64_t kMostStatisticsToken = (std::int64_t{1} << 24) - 1;
constexpr std::int64_t kMostStatisticsReach = std::int64_t{1} << 40;

// Queries or keys to a cell of a map: 16, 32, 64, or a multiple of 128 up to kMostStatisticsReach.
constexpr bool is_map_bin(std::int64_t bin) noexcept {
  return bin == 16 || bin == 32 || bin == 64 || (bin >= 128 && bin % 128 == 0 && bin <= kMostStatisticsReach);
}
// The cells that a map has along that many queries or keys.
constexpr std::int64_t map_cells(std::int64_t length, std::int64_t bin) noexcept {
  return length / bin + (length % bin != 0 ? 1 : 0);
}

// Where statistics go; views without extents ask for nothing. p_ij is the softmax weight of key j in row i, over the
// keys alone where a sink takes its part (the keys' weights then sum to less than 1, and exp(sink - lse) is missing).
// A row that sees no key has zeros where weights are added up, NaN as entropy and distance, -1 as top keys.
template <class T>
struct RowStatistics {
  using Index = std::conditional_t<std::is_const_v<T>, const std::int64_t, std::int64_t>;

  View3<T> visible = {};      // (batch, heads, q_len): how many keys the row sees
  View3<T> entropy = {};      // (batch, heads, q_len): H_i = -sum_j p ln p, in nats, with 0 ln 0 = 0
  View3<T> sum_squares = {};  // (batch, heads, q_len): sum_j p^2; 1 / it is the collision number of keys
  // (batch, heads, q_len): sum_j p |position_i - j| / sum_j p. NaN where sum_j p is 0 in T although keys are seen:
  // where a sink lies some 87 nats (float; double: 708) above every score. The other numbers are those of weights that
  // are 0.
  View3<T> distance = {};
  View4<T> offset_mass = {};  // (batch, heads, q_len, offsets): p of the key at position_i + offset; 0 without one
  View4<T> key_mass = {};     // (batch, heads, q_len, keys): p of each key asked for; 0 without one
  View4<T> class_mass = {};   // (batch, heads, q_len, classes): sum of p over the keys of the class
  // Over other keys of the same token, and over the keys after a token that is the row's own (those j with token
  // j - 1 = token i, j > 0, j - 1 != i): Olsson et al. 2022. (batch, heads, q_len)
  View3<T> duplicate_mass = {}, induction_mass = {};
  // (batch, heads, q_len, k), k 1 to 64: the keys of the largest weights, falling; of equal scores the lower key first.
  // A place that no key fills has key -1 and weight 0; so has a NaN or -inf score no place. A key whose score is +inf
  // is listed; its weight is NaN, as all weights of its row are.
  View4<Index> top_keys = {};
  View4<T> top_weights = {};  // (batch, heads, q_len, k)
  View3<T> received = {};     // (batch, heads, kv_len): sum_i p_ij, what a key gets from all rows
  // (batch, heads, ceil(q_len / bin), ceil(kv_len / bin)): the weight that a row of the bin gives to the keys of the
  // bin, as a mean over the bin's rows. Not with packed sequences.
  View4<T> map = {};

  bool any() const noexcept {
    const auto given = [](const auto&... views) {
      return (... || (views.data() || views.extents() != decltype(views.extents()){}));
    };
    return given(visible, entropy, sum_squares, distance, duplicate_mass, induction_mass, received, offset_mass,
                 key_mass, class_mass, top_keys, top_weights, map);
  }
};

// Statistics on request. Positions and keys are those of the sequence (AttentionOptions): a packed sequence counts from
// its own first query and key, but top_keys and received count along kv_len, as the tensors do. T: float, or double for
// double. Sums follow the order that all sums do, so their bits depend on the row alone (received and map: on the
// rows of the sequence), alike on avx2, avx512 and neon.
template <class T>
struct StatisticsRequest {
  std::span<const std::int64_t> offsets = {};        // of offset_mass: -1 the key before, 0 itself, 1 the one after
  std::span<const std::int64_t> keys = {};           // of key_mass, from the sequence's first; beyond its end: 0
  MatrixView<const std::uint32_t> key_classes = {};  // (batch, kv_len) of class_mass: bit c set: of class c; up to 32
  MatrixView<const std::int64_t> q_tokens = {};      // (batch, q_len) and (batch, kv_len), 0 .. 2^24 - 1, of
  MatrixView<const std::int64_t> kv_tokens = {};     // duplicate_mass and induction_mass
  std::int64_t bin = 0;                              // of map, queries and keys: as is_map_bin() has it
  // (batch, heads, kv_len), at least 0: n_j, the length of key j's value vector after its head's rows of Wo (Kobayashi
  // et al. 2020). A layer computes them itself and wants none.
  View3<const T> norms = {};
  RowStatistics<T> plain = {};
  // Of p_ij n_j / sum_j p_ij n_j: a pass of its own. A key with n_j = 0 weighs 0 and has no place among the top keys; a
  // row that sees no other key has the numbers of one that sees none. visible counts keys whatever their n_j. A n_j
  // that is negative or NaN is not refused: rows that see it are NaN.
  RowStatistics<T> norm_weighted = {};

  bool any() const noexcept { return plain.any() || norm_weighted.any(); }
};

// The same from weights that are already there, (batch, heads, q_len, kv_len), none below 0; query i is at position
// i + query_offset, which is at most kMostStatisticsReach to either side. visible, of norm_weighted as well, counts the
// weights that are above 0 or NaN, whatever their n_j. Sums in double, key by key: the plain definition, slow. Throws
// as attention() does, and bad_option for a negative weight.
void statistics_of_weights(View4<const float> weights, const StatisticsRequest<float>& request,
                           std::int64_t query_offset = 0);
void statistics_of_weights(View4<const double> weights, const StatisticsRequest<double>& request,
                           std::int64_t query_offset = 0);

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// For a target that is another one but for a few kernels: entries of its table that leave their work to the other's.
#pragma once

#include "kernels/backward_task.hpp"
#include "kernels/decode_task.hpp"
#include "kernels/table.hpp"

namespace multihead {

// Calls an entry of another target's table. A task of attention is counted for the target that was asked.
template <const KernelTable& other, class T, auto Entry, class... Arguments>
void hand_on(Arguments... arguments) noexcept {
  (other.kernels<T>().*Entry)(arguments...);
}
template <Target asked, const KernelTable& other, class T>
void hand_on_attention(const AttentionTask<T>& task) noexcept {
  AttentionTask<T> handed = task;
  handed.handed_on_by = asked;
  other.kernels<T>().attention(handed);
}
template <Target asked, const KernelTable& other, class T>
void hand_on_backward(const BackwardTask<T>& task) noexcept {
  BackwardTask<T> handed = task;
  handed.attention.handed_on_by = asked;
  other.kernels<T>().backward(handed);
}

template <Target asked, const KernelTable& other>
void hand_on_decode(const DecodeTask& task) noexcept {
  DecodeTask handed = task;
  handed.handed_on_by = asked;
  other.decode(handed);
}
template <const KernelTable& other>
void hand_on_decode_fold(const DecodeFold& fold) noexcept {
  other.decode_fold(fold);
}

// Every entry, for the target to put its own over some.
template <Target asked, const KernelTable& other, class T>
constexpr Kernels<T> handed_on() noexcept {
  using K = Kernels<T>;
  return {.attention = hand_on_attention<asked, other, T>,
          .weights = hand_on<other, T, &K::weights>,
          .columns = hand_on<other, T, &K::columns>,
          .merge = hand_on<other, T, &K::merge>,
          .matmul = hand_on<other, T, &K::matmul>,
          .map = hand_on<other, T, &K::map>,
          .rotate = hand_on<other, T, &K::rotate>,
          .normalise = hand_on<other, T, &K::normalise>,
          .lengths = hand_on<other, T, &K::lengths>,
          .normalise_back = hand_on<other, T, &K::normalise_back>,
          .activate = hand_on<other, T, &K::activate>,
          .backward = hand_on_backward<asked, other, T>,
          .row_terms = hand_on<other, T, &K::row_terms>};
}

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// Target avx512bf16: attention and products of bfloat16 by VDPBF16PS, everything else as target avx512 does it.
#if defined(__x86_64__)

#include "core/dropout.hpp"
#include "kernels/avx512.hpp"
#include "kernels/backward_task.hpp"
#include "kernels/decode_task.hpp"
#include "kernels/hand_on.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/statistics_task.hpp"
#include "kernels/table.hpp"

// No header is included below this line: only .inl.hpp files, which include nothing.
#if defined(MULTIHEAD_EMULATED_TARGETS)
MULTIHEAD_REGION_BEGIN(MULTIHEAD_AVX512)
#else
MULTIHEAD_REGION_BEGIN("avx512bf16," MULTIHEAD_AVX512)
#endif
namespace multihead::avx512bf16 {
namespace {
constexpr Target kTarget = Target::avx512bf16;
constexpr bool kPairs = true;
constexpr bool kTiles = false;  // whether tiles multiply them: tile_pairs.inl.hpp
// clang-format off
#include "kernels/vec_avx512.inl.hpp"
#if defined(MULTIHEAD_EMULATED_TARGETS)
#include "kernels/dot_twin.inl.hpp"
#else
#include "kernels/vec_avx512bf16.inl.hpp"
#include "kernels/described.inl.hpp"
#endif
#include "kernels/exp2.inl.hpp"
#include "kernels/two.inl.hpp"
#include "kernels/math.inl.hpp"
#include "kernels/panel.inl.hpp"
#include "kernels/convert.inl.hpp"
#include "kernels/activation.inl.hpp"
#include "kernels/matmul.inl.hpp"
#include "kernels/narrow_finish.inl.hpp"
#include "kernels/attention.inl.hpp"
#include "kernels/walk.inl.hpp"
#include "kernels/score_terms.inl.hpp"
#include "kernels/cached_keys.inl.hpp"
#include "kernels/dropout.inl.hpp"
#include "kernels/statistics_scores.inl.hpp"
#include "kernels/statistics.inl.hpp"
#include "kernels/pairs.inl.hpp"
#include "kernels/pair_matmul.inl.hpp"
#include "kernels/attention_task.inl.hpp"
#include "kernels/weights_task.inl.hpp"
#include "kernels/columns_task.inl.hpp"
#include "kernels/backward.inl.hpp"
#include "kernels/backward_pairs.inl.hpp"
#include "kernels/backward_task.inl.hpp"
#include "kernels/decode_loads.inl.hpp"
#include "kernels/decode_pairs.inl.hpp"
#include "kernels/decode.inl.hpp"
#include "kernels/decode_block.inl.hpp"
#include "kernels/decode_weights.inl.hpp"
#include "kernels/decode_task.inl.hpp"
// clang-format on
}  // namespace
}  // namespace multihead::avx512bf16
MULTIHEAD_REGION_END

namespace multihead {

namespace {

bool available() noexcept {
#if defined(MULTIHEAD_EMULATED_TARGETS)
  return has_avx512();
#else
  return has_avx512() && __builtin_cpu_supports("avx512bf16") && avx512bf16::dots_as_described();
#endif
}

template <class T>
constexpr Kernels<T> kHandedOn = handed_on<Target::avx512bf16, avx512_table, T>();

// Of the types whose sums are floats, bfloat16 alone is multiplied in pairs.
void attention(const AttentionTask<float>& task) noexcept {
  const bool pairs = task.needs.type == Type::bfloat16 && !(task.cache && task.cache->of_bytes());
  (pairs ? avx512bf16::attention_task<float> : kHandedOn<float>.attention)(task);
}
void weights(const WeightsTask<float>& task) noexcept {
  (task.attention.needs.type == Type::bfloat16 ? avx512bf16::weights_task<float> : kHandedOn<float>.weights)(task);
}
void columns(const ColumnsTask<float>& task) noexcept {
  (task.attention.needs.type == Type::bfloat16 ? avx512bf16::columns_task<float> : kHandedOn<float>.columns)(task);
}

void narrow_matmul(const NarrowMatmulTask& task) noexcept {
  (task.type == Type::bfloat16 ? avx512bf16::pair_matmul_task : avx512_table.narrow_matmul)(task);
}

void backward(const BackwardTask<float>& task) noexcept {
  (task.attention.k.type == Type::bfloat16 ? avx512bf16::backward_task<float> : kHandedOn<float>.backward)(task);
}

void decode(const DecodeTask& task) noexcept {
  using Pairs = avx512bf16::DecodeProducts<CachedRows::Element::bfloat16>;
  if (task.cache.element == CachedRows::Element::bfloat16) return avx512bf16::decode_rows<Pairs>(task);
  hand_on_decode<Target::avx512bf16, avx512_table>(task);
}

constexpr Kernels<float> float_kernels() noexcept {
  Kernels<float> kernels = kHandedOn<float>;
  kernels.attention = attention, kernels.weights = weights, kernels.columns = columns;
  kernels.backward = backward;
  return kernels;
}

}  // namespace

const KernelTable avx512bf16_table{Target::avx512bf16,
                                   available,
                                   "8 keys x 48 queries",
                                   "8 keys x 24 queries",
                                   "6 queries x 32 keys",
                                   narrow_matmul,
                                   decode,
                                   decode,
                                   hand_on_decode_fold<avx512_table>,
                                   float_kernels(),
                                   kHandedOn<double>,
                                   true};

}  // namespace multihead

#endif  // defined(__x86_64__)

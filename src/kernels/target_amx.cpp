// SPDX-License-Identifier: Apache-2.0
// Target amx: attention, its gradients and products of bfloat16, and attention of what is summed in float, by products
// of tiles; everything else as target avx512 does it.
#if defined(__x86_64__)

#include <array>

#include "core/dropout.hpp"
#include "core/tile_permission.hpp"
#include "kernels/amx.hpp"
#include "kernels/avx512.hpp"
#include "kernels/hand_on.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/statistics_task.hpp"

// No header is included below this line: only .inl.hpp files, which include nothing.
#if defined(MULTIHEAD_EMULATED_TARGETS)
MULTIHEAD_REGION_BEGIN(MULTIHEAD_AVX512)
#else
MULTIHEAD_REGION_BEGIN("avx512bf16," MULTIHEAD_AVX512)
#endif
namespace multihead::amx {
namespace {
constexpr Target kTarget = Target::amx;
constexpr bool kPairs = true;
constexpr bool kTiles = true;
// clang-format off
#include "kernels/vec_avx512.inl.hpp"
#include "kernels/vec_amx.inl.hpp"
#if defined(MULTIHEAD_EMULATED_TARGETS)
#include "kernels/dot_twin.inl.hpp"
#include "kernels/tile_twin.inl.hpp"
#else
#include "kernels/vec_avx512bf16.inl.hpp"
#include "kernels/tiles.inl.hpp"
#include "kernels/described.inl.hpp"
#include "kernels/described_tiles.inl.hpp"
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
#include "kernels/tile_products.inl.hpp"
#include "kernels/pairs.inl.hpp"
#include "kernels/tile_pairs.inl.hpp"
#include "kernels/tile_matmul.inl.hpp"
#include "kernels/attention_task.inl.hpp"
#include "kernels/tile_pipeline.inl.hpp"
#include "kernels/weights_task.inl.hpp"
#include "kernels/columns_task.inl.hpp"
#include "kernels/backward.inl.hpp"
#include "kernels/backward_pairs.inl.hpp"
#include "kernels/backward_tiles.inl.hpp"
#include "kernels/backward_task.inl.hpp"
#include "kernels/backward_pipeline.inl.hpp"
// clang-format on
}  // namespace
}  // namespace multihead::amx
MULTIHEAD_REGION_END

namespace multihead {

namespace {

bool available() noexcept {
#if defined(MULTIHEAD_EMULATED_TARGETS)
  return has_avx512();
#else
  return has_avx512() && __builtin_cpu_supports("avx512bf16") && tiles_permitted() && amx::dots_as_described() &&
         amx::tiles_as_described();
#endif
}

constexpr Kernels<float> kHandedOn = handed_on<Target::amx, avx512_table, float>();

void attention(const AttentionTask<float>& task) noexcept {
  if (task.cache && task.cache->of_bytes()) return hand_on_attention<Target::amx, avx512_table, float>(task);
  if (task.needs.type != Type::bfloat16) return attention_in_parts(task);
  const amx::TileConfiguration configured;
  amx::tile_attention_task<float>(task);
}
void weights(const WeightsTask<float>& task) noexcept {
  if (task.attention.needs.type != Type::bfloat16) return weights_in_parts(task);
  const amx::TileConfiguration configured;
  amx::weights_task<float>(task);
}
void columns(const ColumnsTask<float>& task) noexcept {
  if (task.attention.needs.type != Type::bfloat16) return columns_in_parts(task);
  const amx::TileConfiguration configured;
  amx::columns_task<float>(task);
}

void backward(const BackwardTask<float>& task) noexcept {
  if (task.attention.k.type != Type::bfloat16) return kHandedOn.backward(task);
  const amx::TileConfiguration configured;
  amx::backward_task<float>(task);
}

void narrow_matmul(const NarrowMatmulTask& task) noexcept {
  (task.type == Type::bfloat16 ? amx::tile_matmul_task : avx512_table.narrow_matmul)(task);
}

constexpr Kernels<float> float_kernels() noexcept {
  Kernels<float> kernels = kHandedOn;
  kernels.attention = attention, kernels.weights = weights, kernels.columns = columns;
  kernels.backward = backward;
  return kernels;
}

}  // namespace

const KernelTable amx_table{Target::amx,
                            available,
                            "16 keys x 48 queries",
                            "8 keys x 24 queries",
                            nullptr,
                            narrow_matmul,
                            nullptr,
                            hand_on_decode<Target::amx, avx512_table>,
                            hand_on_decode_fold<avx512_table>,
                            float_kernels(),
                            handed_on<Target::amx, avx512_table, double>(),
                            true,
                            true};

}  // namespace multihead

#endif  // defined(__x86_64__)

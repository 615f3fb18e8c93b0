// SPDX-License-Identifier: Apache-2.0
// Target amx: attention with sums in float by six products of tiles of bfloat16.
#if defined(__x86_64__)

#include "core/dropout.hpp"
#include "kernels/amx.hpp"
#include "kernels/avx512.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/statistics_task.hpp"

// No header is included below this line: only .inl.hpp files, which include nothing.
MULTIHEAD_REGION_BEGIN(MULTIHEAD_AVX512)
namespace multihead::amx_f32 {
namespace {
constexpr Target kTarget = Target::amx;
constexpr bool kPairs = true;
// clang-format off
#include "kernels/vec_avx512.inl.hpp"
#if defined(MULTIHEAD_EMULATED_TARGETS)
#include "kernels/dot_twin.inl.hpp"
#include "kernels/tile_twin.inl.hpp"
#else
#include "kernels/tiles.inl.hpp"
#endif
#include "kernels/exp2.inl.hpp"
#include "kernels/two.inl.hpp"
#include "kernels/math.inl.hpp"
#include "kernels/panel.inl.hpp"
#include "kernels/convert.inl.hpp"
#include "kernels/attention.inl.hpp"
#include "kernels/walk.inl.hpp"
#include "kernels/score_terms.inl.hpp"
#include "kernels/cached_keys.inl.hpp"
#include "kernels/dropout.inl.hpp"
#include "kernels/statistics_scores.inl.hpp"
#include "kernels/statistics.inl.hpp"
#include "kernels/tile_products.inl.hpp"
#include "kernels/parts.inl.hpp"
#include "kernels/attention_task.inl.hpp"
#include "kernels/tile_pipeline.inl.hpp"
#include "kernels/weights_task.inl.hpp"
#include "kernels/columns_task.inl.hpp"
// clang-format on
}  // namespace
}  // namespace multihead::amx_f32
MULTIHEAD_REGION_END

namespace multihead {

void attention_in_parts(const AttentionTask<float>& task) noexcept {
  const amx_f32::TileConfiguration configured;
  amx_f32::tile_attention_task<float>(task);
}
void weights_in_parts(const WeightsTask<float>& task) noexcept {
  const amx_f32::TileConfiguration configured;
  amx_f32::weights_task<float>(task);
}
void columns_in_parts(const ColumnsTask<float>& task) noexcept {
  const amx_f32::TileConfiguration configured;
  amx_f32::columns_task<float>(task);
}

}  // namespace multihead

#endif  // defined(__x86_64__)

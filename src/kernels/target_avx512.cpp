// SPDX-License-Identifier: Apache-2.0
// Target avx512: the kernels for AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)

#include "core/dropout.hpp"
#include "kernels/avx512.hpp"
#include "kernels/backward_task.hpp"
#include "kernels/decode_task.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/statistics_task.hpp"
#include "kernels/table.hpp"

// No header is included below this line: only .inl.hpp files, which include nothing.
MULTIHEAD_REGION_BEGIN(MULTIHEAD_AVX512)
namespace multihead::avx512 {
namespace {
constexpr Target kTarget = Target::avx512;
constexpr bool kPairs = false;  // whether bfloat16 is multiplied in pairs: pairs.inl.hpp
constexpr bool kTiles = false;
// clang-format off
#include "kernels/vec_avx512.inl.hpp"
#include "kernels/exp2.inl.hpp"
#include "kernels/two.inl.hpp"
#include "kernels/math.inl.hpp"
#include "kernels/math_arrays.inl.hpp"
#include "kernels/panel.inl.hpp"
#include "kernels/convert.inl.hpp"
#include "kernels/activation.inl.hpp"
#include "kernels/matmul.inl.hpp"
#include "kernels/narrow_finish.inl.hpp"
#include "kernels/narrow_matmul.inl.hpp"
#include "kernels/rotary.inl.hpp"
#include "kernels/norm.inl.hpp"
#include "kernels/norm_back.inl.hpp"
#include "kernels/attention.inl.hpp"
#include "kernels/walk.inl.hpp"
#include "kernels/score_terms.inl.hpp"
#include "kernels/cached_keys.inl.hpp"
#include "kernels/dropout.inl.hpp"
#include "kernels/statistics_scores.inl.hpp"
#include "kernels/statistics.inl.hpp"
#include "kernels/attention_task.inl.hpp"
#include "kernels/weights_task.inl.hpp"
#include "kernels/columns_task.inl.hpp"
#include "kernels/backward.inl.hpp"
#include "kernels/backward_task.inl.hpp"
#include "kernels/merge.inl.hpp"
#include "kernels/decode_loads.inl.hpp"
#include "kernels/decode.inl.hpp"
#include "kernels/decode_block.inl.hpp"
#include "kernels/decode_weights.inl.hpp"
#include "kernels/decode_task.inl.hpp"
#include "kernels/decode_elements.inl.hpp"
// clang-format on
}  // namespace
}  // namespace multihead::avx512
MULTIHEAD_REGION_END

namespace multihead {

const KernelTable avx512_table{
    Target::avx512,
    has_avx512,
    "8 keys x 48 queries",
    "8 keys x 24 queries",
    "6 queries x 32 keys",
    avx512::narrow_matmul_task,
    avx512::decode_task,
    avx512::decode_task,
    avx512::decode_fold_task,
    {avx512::attention_task<float>, avx512::weights_task<float>, avx512::columns_task<float>, avx512::merge_task<float>,
     avx512::matmul_task<float>, avx512::map_function<float>, avx512::rotary_task<float>, avx512::norm_task<float>,
     avx512::length_task<float>, avx512::norm_back_task<float>, avx512::activation_task<float>,
     avx512::backward_task<float>, avx512::row_terms_task<float>},
    {avx512::attention_task<double>, avx512::weights_task<double>, avx512::columns_task<double>,
     avx512::merge_task<double>, avx512::matmul_task<double>, avx512::map_function<double>, avx512::rotary_task<double>,
     avx512::norm_task<double>, avx512::length_task<double>, avx512::norm_back_task<double>,
     avx512::activation_task<double>, avx512::backward_task<double>, avx512::row_terms_task<double>},
};

}  // namespace multihead

#endif  // defined(__x86_64__)

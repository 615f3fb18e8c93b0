// SPDX-License-Identifier: Apache-2.0
// Target avx2: the kernels for AVX2 with FMA.
#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#include "core/dropout.hpp"
#include "kernels/backward_task.hpp"
#include "kernels/decode_task.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/statistics_task.hpp"
#include "kernels/table.hpp"

// No header is included below this line: only .inl.hpp files, which include nothing.
MULTIHEAD_REGION_BEGIN("avx2,fma,f16c")
namespace multihead::avx2 {
namespace {
// clang-format off
#include "kernels/vec_avx2.inl.hpp"
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
}  // namespace multihead::avx2
MULTIHEAD_REGION_END

namespace multihead {

namespace {
// Not every compiler's __builtin_cpu_supports knows f16c.
bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
bool available() noexcept { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
}  // namespace

const KernelTable avx2_table{
    Target::avx2,
    available,
    "4 keys x 24 queries",
    "4 keys x 12 queries",
    "3 queries x 32 keys",
    avx2::narrow_matmul_task,
    avx2::decode_task,
    avx2::decode_task,
    avx2::decode_fold_task,
    {avx2::attention_task<float>, avx2::weights_task<float>, avx2::columns_task<float>, avx2::merge_task<float>,
     avx2::matmul_task<float>, avx2::map_function<float>, avx2::rotary_task<float>, avx2::norm_task<float>,
     avx2::length_task<float>, avx2::norm_back_task<float>, avx2::activation_task<float>, avx2::backward_task<float>,
     avx2::row_terms_task<float>},
    {avx2::attention_task<double>, avx2::weights_task<double>, avx2::columns_task<double>, avx2::merge_task<double>,
     avx2::matmul_task<double>, avx2::map_function<double>, avx2::rotary_task<double>, avx2::norm_task<double>,
     avx2::length_task<double>, avx2::norm_back_task<double>, avx2::activation_task<double>,
     avx2::backward_task<double>, avx2::row_terms_task<double>},
};

}  // namespace multihead

#endif  // defined(__x86_64__)

// SPDX-License-Identifier: Apache-2.0
// Target neon: the kernels for 64-bit Arm, whose baseline has NEON and FMA.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "core/dropout.hpp"
#include "kernels/backward_task.hpp"
#include "kernels/decode_task.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/statistics_task.hpp"
#include "kernels/table.hpp"

namespace multihead::neon {
namespace {
// clang-format off
#include "kernels/vec_neon.inl.hpp"
#include "kernels/nonzero_bytes.inl.hpp"
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
}  // namespace multihead::neon

namespace multihead {

namespace {
bool available() noexcept { return true; }
}  // namespace

const KernelTable neon_table{
    Target::neon,
    available,
    "8 keys x 12 queries",
    "8 keys x 6 queries",
    "6 queries x 16 keys",
    neon::narrow_matmul_task,
    neon::decode_task,
    neon::decode_task,
    neon::decode_fold_task,
    {neon::attention_task<float>, neon::weights_task<float>, neon::columns_task<float>, neon::merge_task<float>,
     neon::matmul_task<float>, neon::map_function<float>, neon::rotary_task<float>, neon::norm_task<float>,
     neon::length_task<float>, neon::norm_back_task<float>, neon::activation_task<float>, neon::backward_task<float>,
     neon::row_terms_task<float>},
    {neon::attention_task<double>, neon::weights_task<double>, neon::columns_task<double>, neon::merge_task<double>,
     neon::matmul_task<double>, neon::map_function<double>, neon::rotary_task<double>, neon::norm_task<double>,
     neon::length_task<double>, neon::norm_back_task<double>, neon::activation_task<double>,
     neon::backward_task<double>, neon::row_terms_task<double>},
};

}  // namespace multihead

#endif  // defined(__aarch64__)

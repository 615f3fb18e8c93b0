// SPDX-License-Identifier: Apache-2.0
// Target baseline: the kernels for any machine: 16-byte vectors, no fused multiply-add.
#include "kernels/backward_task.hpp"
#include "kernels/decode_task.hpp"
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "core/dropout.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/statistics_task.hpp"
#include "kernels/table.hpp"

namespace multihead::baseline {
namespace {
// clang-format off
#include "kernels/vec_baseline.inl.hpp"
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
}  // namespace multihead::baseline

namespace multihead {

namespace {
bool available() noexcept { return true; }
}  // namespace

const KernelTable baseline_table{
    Target::baseline,
    available,
    "4 keys x 8 queries",
    "4 keys x 4 queries",
    "3 queries x 8 keys",
    baseline::narrow_matmul_task,
    baseline::decode_task,
    baseline::decode_task,
    baseline::decode_fold_task,
    {baseline::attention_task<float>, baseline::weights_task<float>, baseline::columns_task<float>,
     baseline::merge_task<float>, baseline::matmul_task<float>, baseline::map_function<float>,
     baseline::rotary_task<float>, baseline::norm_task<float>, baseline::length_task<float>,
     baseline::norm_back_task<float>, baseline::activation_task<float>, baseline::backward_task<float>,
     baseline::row_terms_task<float>},
    {baseline::attention_task<double>, baseline::weights_task<double>, baseline::columns_task<double>,
     baseline::merge_task<double>, baseline::matmul_task<double>, baseline::map_function<double>,
     baseline::rotary_task<double>, baseline::norm_task<double>, baseline::length_task<double>,
     baseline::norm_back_task<double>, baseline::activation_task<double>, baseline::backward_task<double>,
     baseline::row_terms_task<double>},
};

}  // namespace multihead

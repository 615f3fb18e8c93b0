// SPDX-License-Identifier: Apache-2.0
// The rules of a weight that is to be packed.
#include "layer/packed_linear.hpp"

namespace multihead {

void check_order(const char* function, WeightOrder order) {
  if (order != WeightOrder::in_out && order != WeightOrder::out_in)
    fail(ErrorCode::bad_option, std::string(function) + ": order is neither in_out nor out_in");
}

void check_weight(const char* function, const Operand& weight) {
  check_view(function, weight);
  if (weight.extents[0] > 1 && weight.extents[1] > 1 && weight.strides[0] != 1 && weight.strides[1] != 1)
    fail(ErrorCode::shape_mismatch, std::string(function) + ": " + weight.name + " has strides " +
                                        std::to_string(weight.strides[0]) + " and " +
                                        std::to_string(weight.strides[1]) + "; one of them must be 1");
}

void check_size(const char* function, std::int64_t in, std::int64_t out) {
  std::int64_t size = 0;
  if (__builtin_add_overflow(out, kRowBlock, &size) || __builtin_mul_overflow(size, in, &size) || size > kMostPacked)
    fail(ErrorCode::shape_mismatch, std::string(function) + ": a weight of " + std::to_string(in) + " x " +
                                        std::to_string(out) + " is beyond what can be packed");
}

}  // namespace multihead

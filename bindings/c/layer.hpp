// SPDX-License-Identifier: Apache-2.0
// What a handle of a layer holds.
#pragma once

#include <variant>

#include "multihead/multi_head_attention.hpp"
#include "multihead/multihead.h"
#include "multihead/types.hpp"

struct mh_layer {
  std::variant<multihead::MultiHeadAttention<float>, multihead::MultiHeadAttention<double>,
               multihead::MultiHeadAttention<multihead::BFloat16>, multihead::MultiHeadAttention<multihead::Float16>>
      of_type;
};

// SPDX-License-Identifier: Apache-2.0
// What the library says of encoders whether it was built with them or not.
#pragma once

#include "structs.hpp"

namespace multihead::c {

bool built_with_models() noexcept;

template <>
struct StructOf<mh_encoder_options> : Described<mh_encoder_options> {
  static constexpr const char* kName = "mh_encoder_options";
  static void set(mh_encoder_options& options) { options.precision = options.products = MH_FLOAT32; }
};

template <>
struct StructOf<mh_encoder_extents> : Described<mh_encoder_extents> {
  static constexpr const char* kName = "mh_encoder_extents";
};

template <>
struct StructOf<mh_encoder_call> : Described<mh_encoder_call> {
  static constexpr const char* kName = "mh_encoder_call";
};

}  // namespace multihead::c

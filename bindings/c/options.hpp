// SPDX-License-Identifier: Apache-2.0
// From the option structs of C to those of C++.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <variant>

#include "multihead/attention.hpp"
#include "multihead/layer.hpp"
#include "multihead/target.hpp"
#include "structs.hpp"
#include "tensors.hpp"

namespace multihead::c {

template <>
struct StructOf<mh_run_options> : Described<mh_run_options> {
  static constexpr const char* kName = "mh_run_options";
  static void set(mh_run_options& made) { made.threads = 1; }
};

template <>
struct StructOf<mh_attention_options> : Described<mh_attention_options> {
  static constexpr const char* kName = "mh_attention_options";
  static void set(mh_attention_options& made) {
    made.window_left = made.window_right = -1;
    made.relative_bidirectional = 1;
    made.relative_max_distance = 128;
  }
};

template <>
struct StructOf<mh_attention_shape> : Described<mh_attention_shape> {
  static constexpr const char* kName = "mh_attention_shape";
  static void set(mh_attention_shape& made) {
    made.type = MH_FLOAT32;
    made.batch = made.heads = made.kv_heads = 1;
  }
};

template <>
struct StructOf<mh_weights_request> : Described<mh_weights_request> {
  static constexpr const char* kName = "mh_weights_request";
};

// A field beside init's default for it.
struct Field {
  using Value = std::variant<std::int64_t, double, bool>;  // bool: whether a pointer is given
  const char* name;
  Value value, unset = false;
};

// Refuses fields that are set where nothing would read them: "rotary_dim is 4; without rotary it must be 0".
void check_unread(const char* function, const char* where, std::initializer_list<Field> fields);

// The target of a number; MH_TARGET_CHOOSE is no target.
std::optional<Target> target_of(const char* function, mh_target target);
mh_target target_number(Target target) noexcept;

// The scale where has_scale says that one is given.
std::optional<double> scale_of(const char* function, int32_t has_scale, double scale);

LayerOptions run_options(const char* function, const mh_run_options* options);

// Of a struct that read_struct() gave.
AttentionShape attention_shape(const char* function, const mh_attention_shape& read);

// batch: of the call's tensors, which a list without elements must agree with.
AttentionOptions attention_options(const char* function, const mh_attention_options* options, std::int64_t batch);

// T: the type of the call's sums.
template <class T>
WeightsRequest<T> weights_request(const char* function, const mh_weights_request* given) {
  WeightsRequest<T> request;
  if (!given) return request;
  const mh_weights_request read = read_struct(function, given);
  check_enumerated(function, "weights.point", read.point, MH_WEIGHTS_NORMALISED, MH_WEIGHTS_BIASED);
  constexpr WeightsPoint kPoints[] = {WeightsPoint::normalised, WeightsPoint::scaled, WeightsPoint::capped,
                                      WeightsPoint::biased};
  if (!is_given(read.per_head) && !is_given(read.mean) && !is_given(read.norm_weighted))
    check_unread(function, "without an output",
                 {{"weights.point", read.point, MH_WEIGHTS_NORMALISED},
                  {"weights.heads", is_given(read.heads)},
                  {"weights.rows", is_given(read.rows)},
                  {"weights.norms", is_given(read.norms)}});
  request.point = kPoints[read.point];
  request.heads = filled_list<std::int64_t>({function, "weights.heads"}, read.heads);
  request.rows = filled_list<std::int64_t>({function, "weights.rows"}, read.rows);
  request.per_head = optional_view<T, 4>({function, "weights.per_head"}, read.per_head);
  request.mean = optional_view<T, 3>({function, "weights.mean"}, read.mean);
  request.norm_weighted = optional_view<T, 3>({function, "weights.norm_weighted"}, read.norm_weighted);
  request.norms = optional_view<const T, 3>({function, "weights.norms"}, read.norms);
  return request;
}

}  // namespace multihead::c

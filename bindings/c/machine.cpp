// SPDX-License-Identifier: Apache-2.0
// mh_version, mh_get_info, targets: what the library and the machine are.
#include <algorithm>
#include <string_view>

#include "models.hpp"
#include "multihead/multihead.hpp"
#include "options.hpp"

static_assert(MH_VERSION_MAJOR == MULTIHEAD_VERSION_MAJOR && MH_VERSION_MINOR == MULTIHEAD_VERSION_MINOR &&
                  MH_VERSION_PATCH == MULTIHEAD_VERSION_PATCH,
              "multihead.h and multihead.hpp are of one version");

namespace multihead::c {

template <>
struct StructOf<mh_info> : Described<mh_info> {
  static constexpr const char* kName = "mh_info";
};

}  // namespace multihead::c

using namespace multihead::c;

const char* mh_version(void) { return multihead::version(); }

void mh_run_options_init(mh_run_options* options, size_t size) { init_struct(options, size); }

void mh_encoder_extents_init(mh_encoder_extents* extents, size_t size) { init_struct(extents, size); }
void mh_encoder_options_init(mh_encoder_options* options, size_t size) { init_struct(options, size); }
void mh_encoder_call_init(mh_encoder_call* call, size_t size) { init_struct(call, size); }
void mh_info_init(mh_info* info, size_t size) { init_struct(info, size); }

mh_status mh_get_info(mh_info* info) {
  constexpr const char* kName = "mh_get_info";
  return guarded([&] {
    wanted(kName, "info", info);
    mh_info answer = defaults<mh_info>();
    answer.threads = multihead::hardware_threads();
    answer.chosen = target_number(multihead::chosen_target());
    for (multihead::Target target : multihead::available_targets())
      if (answer.available_count < static_cast<int32_t>(std::size(answer.available)))
        answer.available[answer.available_count++] = target_number(target);
    write_text(answer.version, multihead::version());
    write_text(answer.processor, multihead::processor_name());
    write_text(answer.compiler, multihead::compiler());
    answer.models = built_with_models() ? 1 : 0;
    write_struct(kName, answer, info);
  });
}

const char* mh_target_name(mh_target target) {
  switch (target) {
    case MH_TARGET_BASELINE:
      return "baseline";
    case MH_TARGET_AVX2:
      return "avx2";
    case MH_TARGET_AVX512:
      return "avx512";
    case MH_TARGET_NEON:
      return "neon";
    case MH_TARGET_AVX512BF16:
      return "avx512bf16";
    case MH_TARGET_AMX:
      return "amx";
    default:
      return "unknown";
  }
}

mh_status mh_target_from_name(const char* name, mh_target* target) {
  constexpr const char* kName = "mh_target_from_name";
  return guarded([&] {
    wanted(kName, "name", name);
    wanted(kName, "target", target);
    *target = target_number(multihead::target_from_name(name));
  });
}

mh_status mh_tasks_run(mh_target target, uint64_t* count) {
  constexpr const char* kName = "mh_tasks_run";
  return guarded([&] {
    wanted(kName, "count", count);
    check_enumerated(kName, "target", target, MH_TARGET_BASELINE, MH_TARGET_AMX);
    *count = multihead::tasks_run(*target_of(kName, target));
  });
}

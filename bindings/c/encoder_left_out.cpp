// SPDX-License-Identifier: Apache-2.0
// What stands in for the models' functions where the library is built without utf8proc.
#include "models.hpp"
#include "options.hpp"

namespace multihead::c {

namespace {

mh_status left_out(const char* function) {
  return guarded([&] {
    throw Error(ErrorCode::unsupported,
                std::string(function) + ": the library is built without models; it must be built with utf8proc");
  });
}

}  // namespace

bool built_with_models() noexcept { return false; }

}  // namespace multihead::c

using namespace multihead::c;

mh_status mh_encoder_open(const char*, mh_encoder**) { return left_out("mh_encoder_open"); }
mh_status mh_encoder_open_with(const char*, const mh_encoder_options*, mh_encoder**) {
  return left_out("mh_encoder_open_with");
}
void mh_encoder_destroy(mh_encoder*) {}
mh_status mh_encoder_get_extents(const mh_encoder*, mh_encoder_extents*) { return left_out("mh_encoder_get_extents"); }
mh_status mh_encoder_forward(const mh_encoder*, const mh_encoder_call*, const mh_tensor*, const mh_run_options*) {
  return left_out("mh_encoder_forward");
}
mh_status mh_encoder_tokens(const mh_encoder*, const char*, size_t, int64_t*, int64_t*, int64_t*, size_t, size_t*) {
  return left_out("mh_encoder_tokens");
}
const char* mh_encoder_token_text(const mh_encoder*, int64_t) { return nullptr; }
mh_status mh_encoder_encode(const mh_encoder*, const char* const*, size_t, const mh_tensor*, const mh_run_options*) {
  return left_out("mh_encoder_encode");
}
mh_status mh_kv_cache_save(const mh_kv_cache*, mh_kv_sequence, const char*) { return left_out("mh_kv_cache_save"); }
mh_status mh_kv_cache_load(mh_kv_cache*, const char*, mh_kv_sequence*) { return left_out("mh_kv_cache_load"); }

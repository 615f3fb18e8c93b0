// SPDX-License-Identifier: Apache-2.0
// mh_paged_attention.
#include "multihead/paged_attention.hpp"

#include <type_traits>

#include "options.hpp"

namespace multihead::c {

namespace {

constexpr const char* kPaged = "paged_attention";

}  // namespace

template <>
struct StructOf<mh_paged_keys> : Described<mh_paged_keys> {
  static constexpr const char* kName = "mh_paged_keys";
};

}  // namespace multihead::c

using namespace multihead::c;

void mh_paged_keys_init(mh_paged_keys* keys, size_t size) { init_struct(keys, size); }

mh_status mh_paged_attention(const mh_tensor* q, const mh_paged_keys* keys, const mh_tensor* out, const mh_tensor* lse,
                             const mh_attention_options* options) {
  return guarded([&] {
    const Role role{kPaged, "q"};
    wanted(kPaged, "keys", keys);
    const mh_paged_keys read = read_struct(kPaged, keys);
    check_reserved(kPaged, "mh_paged_keys.reserved", read.reserved);
    with_type(role, type_of(role, q), [&]<class T>() {
      if constexpr (std::is_same_v<T, double>) {
        bad_type(kPaged, "q has type float64; it must be float32, bfloat16 or float16");
      } else {
        const auto queries = view<const T, 4>(role, q);
        const multihead::PagedKeys<T> paged{
            .k_pages = view<const T, 4>({kPaged, "k_pages"}, read.k_pages),
            .v_pages = view<const T, 4>({kPaged, "v_pages"}, read.v_pages),
            .block_table = view<const std::int32_t, 2>({kPaged, "block_table"}, read.block_table),
            .lengths = list<std::int64_t>({kPaged, "lengths"}, read.lengths)};
        multihead::paged_attention(queries, paged, view<T, 4>({kPaged, "out"}, out),
                                   optional_view<float, 3>({kPaged, "lse"}, lse),
                                   attention_options(kPaged, options, queries.extent(0)));
      }
    });
  });
}

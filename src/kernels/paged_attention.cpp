// SPDX-License-Identifier: Apache-2.0
// paged_attention(): the caller's pages, checked, as cached keys.
#include "multihead/paged_attention.hpp"

#include <limits>

#include "core/validate.hpp"
#include "kernels/cached_call.hpp"
#include "kernels/operands.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "paged_attention";

template <class T>
CachedSequence sequence_of(const void* context, std::int64_t index) {
  const auto& keys = *static_cast<const PagedKeys<T>*>(context);
  return {keys.block_table.data() + index * keys.block_table.stride(0), keys.lengths[static_cast<std::size_t>(index)]};
}

// Every valid position lies in a page of the table, and that page is there.
template <class T>
void check_table(const PagedKeys<T>& keys) {
  const MatrixView<const std::int32_t>& table = keys.block_table;
  const std::int64_t pages = keys.k_pages.extent(0), page_len = keys.k_pages.extent(1);
  check_view(kName, operand("block_table", table));
  check_contiguous(kName, operand("block_table", table));
  check_equal(kName, "lengths", "has", static_cast<std::int64_t>(keys.lengths.size()), "block_table has sequences",
              table.extent(0));
  std::int64_t reach = 0;  // positions of a row of the table
  if (__builtin_mul_overflow(table.extent(1), page_len, &reach)) reach = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t s = 0; s < table.extent(0); ++s) {
    const std::int64_t length = keys.lengths[static_cast<std::size_t>(s)];
    check_between(kName, "a length", length, 0, reach);
    for (std::int64_t i = 0; i * page_len < length; ++i)
      check_between(kName, "a page of block_table", table(s, i), 0, pages - 1);
  }
}

template <class T>
void check_pages(const PagedKeys<T>& keys) {
  const Operand k = operand("k_pages", keys.k_pages), v = operand("v_pages", keys.v_pages);
  for (const Operand* view : {&k, &v}) {
    check_view(kName, *view);
    check_contiguous(kName, *view);
  }
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  check_between(kName, "page_len", k.extents[1], 1, kMost);
  check_between(kName, "kv_heads", k.extents[2], 1, kMost);
  check_between(kName, "head_dim", k.extents[3], 1, kMaxHeadDim);
  check_between(kName, "value_dim", v.extents[3], 1, kMaxHeadDim);
  check_equal(kName, "v_pages", "has pages", v.extents[0], "k_pages has", k.extents[0]);
  check_equal(kName, "v_pages", "has page_len", v.extents[1], "k_pages has", k.extents[1]);
  check_equal(kName, "v_pages", "has kv_heads", v.extents[2], "k_pages has", k.extents[2]);
}

template <class T>
void check_apart_from_pages(const Operand& output, const PagedKeys<T>& keys) {
  check_apart(kName, output, operand("k_pages", keys.k_pages));
  check_apart(kName, output, operand("v_pages", keys.v_pages));
  check_apart(kName, output, operand("block_table", keys.block_table));
  check_apart_from_list(kName, output, "lengths", keys.lengths);
}

template <class T>
CachedKeys cached_keys(const PagedKeys<T>& keys) {
  const auto bytes = [](std::int64_t elements) { return elements * static_cast<std::int64_t>(sizeof(T)); };
  const auto &k = keys.k_pages, &v = keys.v_pages;
  CachedKeys cached;
  cached.rows = {.element = element_of(kTypeOf<T>),
                 .blocked = false,
                 .k = reinterpret_cast<const std::byte*>(k.data()),
                 .v = reinterpret_cast<const std::byte*>(v.data()),
                 .k_page = bytes(k.stride(0)),
                 .v_page = bytes(v.stride(0)),
                 .k_row = bytes(k.stride(1)),
                 .v_row = bytes(v.stride(1)),
                 .pages = nullptr,
                 .page_len = k.extent(1)};
  cached.k_head = bytes(k.stride(2)), cached.v_head = bytes(v.stride(2));
  cached.kv_heads = k.extent(2), cached.head_dim = k.extent(3), cached.value_dim = v.extent(3);
  cached.sequences = keys.block_table.extent(0);
  cached.sequence = sequence_of<T>;
  cached.context = &keys;
  return cached;
}

template <class T>
void run(const CachedTensors<T>& tensors, const PagedKeys<T>& keys, const AttentionOptions& options) {
  check_pages(keys);
  check_table(keys);
  check_view(kName, operand("out", tensors.out));
  check_apart_from_pages(operand("out", tensors.out), keys);
  if (given(tensors.lse)) {
    check_view(kName, operand("lse", tensors.lse));
    check_apart_from_pages(operand("lse", tensors.lse), keys);
  }
  cached_attention<T>(kName, tensors, cached_keys(keys), options);
}

}  // namespace

void paged_attention(View4<const float> q, const PagedKeys<float>& keys, View4<float> out, View3<float> lse,
                     const AttentionOptions& options) {
  run<float>({q, out, lse}, keys, options);
}
void paged_attention(View4<const BFloat16> q, const PagedKeys<BFloat16>& keys, View4<BFloat16> out, View3<float> lse,
                     const AttentionOptions& options) {
  run<BFloat16>({q, out, lse}, keys, options);
}
void paged_attention(View4<const Float16> q, const PagedKeys<Float16>& keys, View4<Float16> out, View3<float> lse,
                     const AttentionOptions& options) {
  run<Float16>({q, out, lse}, keys, options);
}

}  // namespace multihead

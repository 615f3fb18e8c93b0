// SPDX-License-Identifier: Apache-2.0
// How a part of a problem says in its own options what the whole says.
#include "part.hpp"

#include <algorithm>

namespace multihead::testing {

std::vector<Part> sequences_of(const Problem& p) {
  std::vector<Part> parts;
  for (std::int64_t b = 0; b < p.shape.batch; ++b)
    for (std::int64_t i = 0; i < p.shape.q_len; ++i) {
      const Stand stand(p, b, i);
      if (stand.q_first == i) parts.push_back({b, i, i, stand.k_first, stand.k_end});
      parts.back().q_end = i + 1;
    }
  return parts;
}

namespace {

// The elements of a part, in place.
Spread part_of(Spread spread, const Part& part) {
  const std::array<std::int64_t, 4> begin{part.b, 0, part.q_begin, part.k_begin};
  const std::array<std::int64_t, 4> length{1, 0, part.q_end - part.q_begin, part.k_end - part.k_begin};
  for (std::size_t axis : {0u, 2u, 3u}) {
    if (static_cast<int>(axis) < 4 - spread.rank || spread.extents[axis] == 1) continue;
    if (length[axis] > 0) spread.first += begin[axis] * spread.strides[axis];
    spread.extents[axis] = length[axis];
  }
  return spread;
}

}  // namespace

Problem undropped(Problem p) {
  p.plain.dropout = {};
  return p;
}

Problem part_of(const Problem& p, const Part& part) {
  const Stand stand(p, part.b, part.q_begin);
  Problem own = undropped(p);
  own.shape.batch = 1, own.shape.q_len = part.q_end - part.q_begin, own.shape.kv_len = part.k_end - part.k_begin;
  const std::int64_t keys_before = part.k_begin - stand.k_first;
  own.plain.alignment = Alignment::at(stand.offset + part.q_begin - stand.q_first - keys_before);
  if (!p.prefixes.empty()) own.prefixes = {std::clamp<std::int64_t>(stand.prefix - keys_before, 0, own.shape.kv_len)};
  own.plain.window.first = std::max<std::int64_t>(p.plain.window.first - keys_before, 0);
  for (auto* list :
       {&own.lengths, &own.offsets, &own.cu_seqlens_q, &own.cu_seqlens_k, &own.q_segments, &own.kv_segments})
    list->clear();
  for (Spread* spread : {&own.keep_mask, &own.drop_mask, &own.bias}) *spread = part_of(*spread, part);
  return own;
}

Problem as_one_mask(const Problem& p) {
  Problem own = p;
  own.offsets.clear(), own.prefixes.clear(), own.lengths.clear();
  own.plain.causal = false, own.plain.window = {};
  Spread& mask = own.keep_mask;
  mask = Spread{};
  mask.rank = 4, mask.extents = {p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.kv_len};
  for (std::int64_t b = 0; b < p.shape.batch; ++b) {
    own.offsets.push_back(p.shape.q_len ? Stand(p, b, 0).offset : 0);
    for (std::int64_t h = 0; h < p.shape.heads; ++h)
      for (std::int64_t i = 0; i < p.shape.q_len; ++i) {
        const Stand stand(p, b, i);
        for (std::int64_t j = 0; j < p.shape.kv_len; ++j)
          mask.values.push_back(sees(p, stand,
                                     {
                                         b,
                                         h,
                                         i,
                                     },
                                     j)
                                    ? 1
                                    : 0);
      }
  }
  mask.strides = View4<double>(nullptr, mask.extents).strides();
  mask.values.resize(mask.values.size() + 1);
  Random random(p.seed);
  mask.store_mask(random);
  own.drop_mask = Spread{};
  return own;
}

Spread expanded(const Spread& from, const AttentionShape& shape) {
  Spread to;
  to.rank = 4, to.bytes = !from.bytes;
  to.extents = {shape.batch, shape.heads, shape.q_len, shape.kv_len};
  to.strides = View4<double>(nullptr, to.extents).strides();
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t h = 0; h < shape.heads; ++h)
      for (std::int64_t i = 0; i < shape.q_len; ++i)
        for (std::int64_t j = 0; j < shape.kv_len; ++j) to.values.push_back(from(b, h, i, j));
  to.values.resize(to.values.size() + 1);
  return to;
}

}  // namespace multihead::testing

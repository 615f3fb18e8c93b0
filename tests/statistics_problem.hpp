// SPDX-License-Identifier: Apache-2.0
// A random request for statistics of a problem, with memory for its answer, and the bits of what was answered.
#pragma once

#include <memory>

#include "part.hpp"

namespace multihead::testing {

// What a request reads, drawn for a problem.
struct StatisticsLists {
  std::vector<std::int64_t> offsets, keys, q_tokens, kv_tokens;
  std::vector<std::uint32_t> key_classes;
  std::int64_t classes, top;

  explicit StatisticsLists(const Problem& p) {
    Random random(p.seed + 3);
    for (std::int64_t left = random.between(0, 4); left > 0; --left)
      offsets.push_back(random.chance(80) ? random.between(-3, 3) : random.between(-p.shape.kv_len, p.shape.kv_len));
    for (std::int64_t left = random.between(0, 3); left > 0; --left)
      keys.push_back(random.between(0, p.shape.kv_len + 2));
    classes = random.chance(10) ? 32 : random.between(1, 3);
    top = random.pick<std::int64_t>({1, 1, 2, 3, 8, 64});
    const std::int64_t words = random.pick<std::int64_t>({1, 3, 20});
    const auto fill = [&](auto& list, std::int64_t length, auto draw) {
      for (std::int64_t at = 0; at < p.shape.batch * length; ++at) list.push_back(draw());
    };
    fill(q_tokens, p.shape.q_len, [&] { return random.between(0, words); });
    fill(kv_tokens, p.shape.kv_len, [&] { return random.between(0, words); });
    fill(key_classes, p.shape.kv_len,
         [&] { return static_cast<std::uint32_t>(random.bits() & (random.chance(50) ? random.bits() : 0)); });
  }
};

// Room for every statistic that attention gathers in its pass, of (batch, heads, rows); axes turned round in memory
// where asked.
template <class Real>
struct StatisticsRoom {
  std::vector<std::vector<Real>> values;
  std::vector<std::int64_t> keys;
  RowStatistics<Real> to;

  StatisticsRoom(std::array<std::int64_t, 3> rows, const StatisticsLists& lists, bool turned = false) {
    const std::int64_t b = rows[0], h = rows[1], q = rows[2];
    const auto count = [](const auto& list) { return static_cast<std::int64_t>(list.size()); };
    for (auto* view : {&to.visible, &to.entropy, &to.sum_squares, &to.distance, &to.duplicate_mass, &to.induction_mass})
      *view = turned ? View3<Real>(room(b * h * q), {b, h, q}, {1, b, b * h}) : View3<Real>(room(b * h * q), {b, h, q});
    const auto lay_out = [&](auto* data, std::int64_t n) {
      using Element = std::remove_pointer_t<decltype(data)>;
      return turned ? View4<Element>(data, {b, h, q, n}, {1, b, b * h, b * h * q}) : View4<Element>(data, {b, h, q, n});
    };
    for (auto [view, n] : {std::pair{&to.offset_mass, count(lists.offsets)},
                           {&to.key_mass, count(lists.keys)},
                           {&to.class_mass, lists.classes},
                           {&to.top_weights, lists.top}})
      *view = lay_out(room(b * h * q * n), n);
    keys.assign(static_cast<std::size_t>(b * h * q * lists.top) + 1, 77);
    to.top_keys = lay_out(keys.data(), lists.top);
  }
  Real* room(std::int64_t count) {
    values.emplace_back(static_cast<std::size_t>(count) + 1, Real(77));
    return values.back().data();
  }

  // visit(name, view) for each, top_keys apart.
  template <class Visit>
  static void each_of(const RowStatistics<Real>& to, const Visit& visit) {
    visit("visible", to.visible), visit("entropy", to.entropy), visit("sum_squares", to.sum_squares);
    visit("distance", to.distance), visit("duplicate_mass", to.duplicate_mass);
    visit("induction_mass", to.induction_mass), visit("offset_mass", to.offset_mass), visit("key_mass", to.key_mass);
    visit("class_mass", to.class_mass), visit("top_weights", to.top_weights);
  }
  template <class Visit>
  void each(const Visit& visit) const {
    each_of(to, visit);
  }
};

// Rows [begin, end) of one batch entry.
template <class Element, int Rank>
View<Element, Rank> rows_of_statistic(const View<Element, Rank>& view, std::int64_t b, std::int64_t begin,
                                      std::int64_t end) {
  auto extents = view.extents();
  extents[0] = 1, extents[2] = end - begin;
  return {view.data() + b * view.stride(0) + begin * view.stride(2), extents, view.strides()};
}

// The bits of the rows [begin, end) of a batch entry; top keys as counted from k_begin.
template <class Real>
std::uint64_t hash_statistics(const StatisticsRoom<Real>& room, const Part& part) {
  std::uint64_t hash = 1;
  room.each([&](const char*, const auto& view) {
    hash = hash_bits(rows_of_statistic(view, part.b, part.q_begin, part.q_end), hash);
  });
  const auto keys = rows_of_statistic(room.to.top_keys, part.b, part.q_begin, part.q_end);
  for (std::int64_t h = 0; h < keys.extent(1); ++h)
    for (std::int64_t i = 0; i < keys.extent(2); ++i)
      for (std::int64_t place = 0; place < keys.extent(3); ++place) {
        const std::int64_t key = keys(0, h, i, place);
        hash = (hash ^ static_cast<std::uint64_t>(key < 0 ? key : key - part.k_begin)) * 0x100000001B3u;
      }
  return hash;
}

// The request of a problem, or of a part of it, whose rows and keys its lists are cut to.
template <class Real>
StatisticsRequest<Real> request_of(const Problem& p, const StatisticsLists& lists, const RowStatistics<Real>& to,
                                   const Part* part = nullptr) {
  StatisticsRequest<Real> request;
  request.offsets = lists.offsets, request.keys = lists.keys, request.plain = to;
  const auto view_of = [&](const auto& list, std::int64_t length, std::int64_t begin, std::int64_t end) {
    using Element = std::remove_reference_t<decltype(list[0])>;
    const std::int64_t first = part ? part->b * length + begin : 0;
    return part ? MatrixView<Element>(list.data() + first, {1, end - begin}, {length, 1})
                : MatrixView<Element>(list.data(), {p.shape.batch, length});
  };
  const auto [b, q_begin, q_end, k_begin, k_end] = part ? *part : Part{};
  request.q_tokens = view_of(lists.q_tokens, p.shape.q_len, q_begin, q_end);
  request.kv_tokens = view_of(lists.kv_tokens, p.shape.kv_len, k_begin, k_end);
  request.key_classes = view_of(lists.key_classes, p.shape.kv_len, k_begin, k_end);
  return request;
}

// One call with statistics and the weights of all rows, or of none.
template <class T>
struct StatisticsAnswer {
  using Real = Sum<T>;
  StatisticsLists lists;
  Tensor<T> out;
  std::vector<Real> lse_values, weights_values;
  View3<Real> lse;
  View4<Real> weights;
  StatisticsRoom<Real> room;

  StatisticsAnswer(const Problem& p, Tensors<T>& in, const AttentionOptions& options, bool with_weights = false)
      : StatisticsAnswer(p, {in.q.view, in.k.view, in.v.view, nullptr, with_weights}, options) {}
  // Of a part, from the inputs and lists of the whole.
  StatisticsAnswer(const Problem& p, Tensors<T>& in, const Part& part, const AttentionOptions& options)
      : StatisticsAnswer(
            p,
            {rows_of(in.q.view, part.b, part.q_begin, part.q_end), rows_of(in.k.view, part.b, part.k_begin, part.k_end),
             rows_of(in.v.view, part.b, part.k_begin, part.k_end), &part, false},
            options) {}

  std::uint64_t bits_of_attention() const { return hash_bits(lse, hash_bits(out.view)); }
  // Of all rows of each batch entry, keys as they are.
  std::uint64_t bits() const {
    std::uint64_t hash = 1;
    for (std::int64_t b = 0; b < lse.extent(0); ++b)
      hash = hash * 31 + hash_statistics(room, Part{b, 0, lse.extent(2), 0, 0});
    return hash;
  }

 private:
  struct Call {
    View4<T> q, k, v;
    const Part* part;
    bool with_weights;
  };

  StatisticsAnswer(const Problem& p, const Call& call, const AttentionOptions& options)
      : lists(p),
        out({call.q.extent(0), call.q.extent(1), call.q.extent(2), call.v.extent(3)}),
        lse_values(static_cast<std::size_t>(call.q.extent(0) * call.q.extent(1) * call.q.extent(2)) + 1),
        lse(lse_values.data(), {call.q.extent(0), call.q.extent(1), call.q.extent(2)}),
        room(lse.extents(), lists, p.seed % 2 == 1) {
    WeightsRequest<Real> wanted;
    if (call.with_weights) {
      weights_values.resize(lse_values.size() * static_cast<std::size_t>(call.k.extent(2)) + 1);
      wanted.per_head = {weights_values.data(),
                         {call.q.extent(0), call.q.extent(1), call.q.extent(2), call.k.extent(2)}};
      weights = wanted.per_head;
    }
    attention(View4<const T>(call.q), View4<const T>(call.k), View4<const T>(call.v), out.view, lse, wanted,
              request_of(p, lists, room.to, call.part), options);
  }
};

}  // namespace multihead::testing

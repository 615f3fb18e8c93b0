// SPDX-License-Identifier: Apache-2.0
// How far the targets' answers to a random problem are from the reference's.
#include "judge.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "multihead/reference.hpp"

namespace multihead::cli {

namespace {

using Extents = std::array<std::int64_t, 4>;

// Calls body(b, h, i) for every row of four axes.
void for_rows(const Extents& extents, const auto& body) {
  for (std::int64_t b = 0; b < extents[0]; ++b)
    for (std::int64_t h = 0; h < extents[1]; ++h)
      for (std::int64_t i = 0; i < extents[2]; ++i) body(b, h, i);
}

// Last axis contiguous, the others in random order with gaps. NaN until written.
template <class T>
struct Strided {
  std::vector<T> storage;
  View4<T> view;

  Strided(Random& random, const Extents& extents) {
    std::array<std::size_t, 3> order{0, 1, 2};
    for (std::size_t i = 2; i > 0; --i)
      std::swap(order[i], order[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(i)))]);
    Extents strides{0, 0, 0, 1};
    std::int64_t step = extents[3] + random.between(0, 3);
    for (std::size_t axis : order) {
      strides[axis] = step;
      step = step * std::max<std::int64_t>(extents[axis], 1) + random.between(0, 2);
    }
    storage.assign(static_cast<std::size_t>(step), std::numeric_limits<T>::quiet_NaN());
    view = View4<T>(storage.data(), extents, strides);
  }
};

// Contiguous, in double: what the reference takes and gives.
struct Dense {
  std::vector<double> storage;
  View4<double> view;

  explicit Dense(const Extents& extents)
      : storage(static_cast<std::size_t>(extents[0] * extents[1] * extents[2] * extents[3])),
        view(storage.data(), extents) {}
  template <class T>
  explicit Dense(const Strided<T>& from) : Dense(from.view.extents()) {
    for_rows(view.extents(), [&](std::int64_t b, std::int64_t h, std::int64_t i) {
      for (std::int64_t c = 0; c < view.extent(3); ++c) view(b, h, i, c) = static_cast<double>(from.view(b, h, i, c));
    });
  }
};

// Normal numbers; rows past the length of their sequence stay NaN.
template <class T>
Strided<T> random_tensor(Random& random, const Extents& extents, const std::vector<std::int64_t>& lengths) {
  Strided<T> tensor(random, extents);
  for_rows(extents, [&](std::int64_t b, std::int64_t h, std::int64_t i) {
    if (!lengths.empty() && i >= lengths[static_cast<std::size_t>(b)]) return;
    for (std::int64_t c = 0; c < extents[3]; ++c) tensor.view(b, h, i, c) = static_cast<T>(random.normal());
  });
  return tensor;
}

double norm(const Dense& tensor, std::int64_t b, std::int64_t h, std::int64_t i) {
  double squares = 0;
  for (std::int64_t c = 0; c < tensor.view.extent(3); ++c) squares += tensor.view(b, h, i, c) * tensor.view(b, h, i, c);
  return std::sqrt(squares);
}

// The reference's answer, and what it is judged by.
struct Reference {
  Dense q, k, v, out;
  Dense lse;       // (batch, heads, q_len, 1)
  Dense out_unit;  // (batch, heads, q_len, 1), without eps
  Dense lse_unit;

  template <class T>
  Reference(const Strided<T>& q_in, const Strided<T>& k_in, const Strided<T>& v_in, const AttentionOptions& options)
      : q(q_in),
        k(k_in),
        v(v_in),
        out(with_width(v.view.extent(3))),
        lse(with_width(1)),
        out_unit(with_width(1)),
        lse_unit(with_width(1)) {
    const View3<double> rows(lse.storage.data(), {q.view.extent(0), q.view.extent(1), q.view.extent(2)});
    attention_reference(q.view, k.view, v.view, out.view, rows, options);
    const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(q.view.extent(3))));
    for_rows({q.view.extent(0), q.view.extent(1), 1},
             [&](std::int64_t b, std::int64_t h, std::int64_t) { set_units(b, h, std::abs(scale)); });
  }

 private:
  Extents with_width(std::int64_t width) const { return {q.view.extent(0), q.view.extent(1), q.view.extent(2), width}; }

  void set_units(std::int64_t b, std::int64_t h, double scale) {
    const std::int64_t kv_head = h * k.view.extent(1) / q.view.extent(1);
    double largest_key = 0, largest_value = 0;  // hidden rows are NaN, and std::max keeps its first argument
    for (std::int64_t j = 0; j < k.view.extent(2); ++j) {
      largest_key = std::max(largest_key, norm(k, b, kv_head, j));
      for (std::int64_t c = 0; c < v.view.extent(3); ++c)
        largest_value = std::max(largest_value, std::abs(v.view(b, kv_head, j, c)));
    }
    for (std::int64_t i = 0; i < q.view.extent(2); ++i) {
      const double a = scale * norm(q, b, h, i) * largest_key;
      out_unit.view(b, h, i, 0) = largest_value * (1 + a);
      lse_unit.view(b, h, i, 0) = 1 + a + std::abs(lse.view(b, h, i, 0));
    }
  }
};

void widen(Distance& distance, double answer, double reference, double unit) {
  if (answer == reference) return;  // -inf among them
  const double error = std::abs(answer - reference);
  const bool finite = std::isfinite(error);
  const double infinity = std::numeric_limits<double>::infinity();
  distance.absolute = std::max(distance.absolute, finite ? error : infinity);
  distance.units = std::max(distance.units, finite ? error / unit : infinity);
}

template <class T>
Distance distance_of(const Strided<T>& out, const Strided<T>& lse, const Reference& reference) {
  constexpr double kEps = std::numeric_limits<T>::epsilon();
  Distance distance;
  for_rows(out.view.extents(), [&](std::int64_t b, std::int64_t h, std::int64_t i) {
    for (std::int64_t c = 0; c < out.view.extent(3); ++c)
      widen(distance, static_cast<double>(out.view(b, h, i, c)), reference.out.view(b, h, i, c),
            kEps * reference.out_unit.view(b, h, i, 0));
    widen(distance, static_cast<double>(lse.view(b, h, i, 0)), reference.lse.view(b, h, i, 0),
          kEps * reference.lse_unit.view(b, h, i, 0));
  });
  return distance;
}

}  // namespace

template <class T>
std::vector<Distance> judge(const Problem& problem, std::span<const Target> targets, int threads) {
  const AttentionShape& shape = problem.shape;
  Random random(problem.seed);
  const auto q = random_tensor<T>(random, {shape.batch, shape.heads, shape.q_len, shape.head_dim}, {});
  const auto k = random_tensor<T>(random, {shape.batch, shape.kv_heads, shape.kv_len, shape.head_dim}, problem.lengths);
  const auto v =
      random_tensor<T>(random, {shape.batch, shape.kv_heads, shape.kv_len, shape.value_dim}, problem.lengths);
  AttentionOptions options;
  options.scale = problem.scale;
  options.causal = problem.causal;
  options.lengths = problem.lengths;
  options.threads = threads;
  const Reference reference(q, k, v, options);

  std::vector<Distance> distances;
  for (const Target target : targets) {
    options.target = target;
    const Strided<T> out(random, {shape.batch, shape.heads, shape.q_len, shape.value_dim});
    const Strided<T> lse(random, {shape.batch, shape.heads, shape.q_len, 1});
    const View3<T> lse_rows(lse.view.data(), {shape.batch, shape.heads, shape.q_len},
                            {lse.view.stride(0), lse.view.stride(1), lse.view.stride(2)});
    attention(q.view, k.view, v.view, out.view, lse_rows, options);
    distances.push_back(distance_of(out, lse, reference));
  }
  return distances;
}

template std::vector<Distance> judge<float>(const Problem&, std::span<const Target>, int);
template std::vector<Distance> judge<double>(const Problem&, std::span<const Target>, int);

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// How far the targets' answers to a random problem are from the reference's.
#include "judge.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>
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

// A stored value and back, by way of the type that sums are made in.
template <class T>
double widened(T x) {
  return static_cast<double>(static_cast<Sum<T>>(x));
}
template <class T>
T narrowed(double x) {
  return static_cast<T>(static_cast<Sum<T>>(x));
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
    storage.assign(static_cast<std::size_t>(step), narrowed<T>(std::numeric_limits<double>::quiet_NaN()));
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
      for (std::int64_t c = 0; c < view.extent(3); ++c) view(b, h, i, c) = widened(from.view(b, h, i, c));
    });
  }
};

// Normal numbers in every row of queries.
template <class T>
Strided<T> random_queries(Random& random, const Extents& extents) {
  Strided<T> tensor(random, extents);
  for_rows(extents, [&](std::int64_t b, std::int64_t h, std::int64_t i) {
    for (std::int64_t c = 0; c < extents[3]; ++c) tensor.view(b, h, i, c) = narrowed<T>(random.normal());
  });
  return tensor;
}

// Normal numbers in the rows of keys or values that a sequence with queries has; the others stay NaN.
template <class T>
Strided<T> random_keys(Random& random, const Extents& extents, const std::vector<Sequence>& sequences) {
  Strided<T> tensor(random, extents);
  for (const Sequence& sequence : sequences) {
    if (sequence.q_len == 0) continue;
    for_rows({1, extents[1], sequence.k_len, 0}, [&](std::int64_t, std::int64_t h, std::int64_t j) {
      for (std::int64_t c = 0; c < extents[3]; ++c)
        tensor.view(sequence.batch, h, sequence.k_begin + j, c) = narrowed<T>(random.normal());
    });
  }
  return tensor;
}

double norm(const Dense& tensor, std::int64_t b, std::int64_t h, std::int64_t i) {
  double squares = 0;
  for (std::int64_t c = 0; c < tensor.view.extent(3); ++c) squares += tensor.view(b, h, i, c) * tensor.view(b, h, i, c);
  return std::sqrt(squares);
}

// The reference's answer, and what it is judged by.
class Reference {
 public:
  template <class T>
  Reference(const Strided<T>& q, const Strided<T>& k, const Strided<T>& v, const Problem& problem)
      : out(with_width(q, v.view.extent(3))),
        lse(with_width(q, 1)),
        out_unit(with_width(q, 1)),
        lse_unit(with_width(q, 1)),
        problem_(problem),
        q_(q),
        k_(k),
        v_(v) {
    const View3<double> rows(lse.storage.data(), {q.view.extent(0), q.view.extent(1), q.view.extent(2)});
    attention_reference(q_.view, k_.view, v_.view, out.view, rows, problem.options());
    for (const Sequence& sequence : problem.sequences)
      for (std::int64_t h = 0; h < q.view.extent(1); ++h) set_units(sequence, h);
  }

  Dense out;
  Dense lse;       // (batch, heads, q_len, 1)
  Dense out_unit;  // (batch, heads, q_len, 1), without eps
  Dense lse_unit;

 private:
  template <class T>
  static Extents with_width(const Strided<T>& q, std::int64_t width) {
    return {q.view.extent(0), q.view.extent(1), q.view.extent(2), width};
  }

  void set_units(const Sequence& sequence, std::int64_t h) {
    const std::int64_t b = sequence.batch, kv_head = h * k_.view.extent(1) / q_.view.extent(1);
    const double default_scale = 1 / std::sqrt(static_cast<double>(q_.view.extent(3)));
    const double scale = std::abs(problem_.plain.scale.value_or(default_scale));
    double largest_key = 0, largest_value = 0;
    for (std::int64_t j = sequence.k_begin; j < sequence.k_begin + sequence.k_len; ++j) {
      largest_key = std::max(largest_key, norm(k_, b, kv_head, j));
      for (std::int64_t c = 0; c < v_.view.extent(3); ++c)
        largest_value = std::max(largest_value, std::abs(v_.view(b, kv_head, j, c)));
    }
    for (std::int64_t i = sequence.q_begin; i < sequence.q_begin + sequence.q_len; ++i) {
      const double a = scale * norm(q_, b, h, i) * largest_key + largest_terms(sequence, h, i);
      const double with_sink = std::max(a, problem_.sinks.empty() ? 0 : std::abs(of_head(problem_.sinks, h)));
      out_unit.view(b, h, i, 0) = largest_value * (1 + with_sink);
      lse_unit.view(b, h, i, 0) = 1 + with_sink + std::abs(lse.view(b, h, i, 0));
    }
  }

  static double of_head(const std::vector<double>& values, std::int64_t h) {
    return values[static_cast<std::size_t>(h)];
  }

  // The most that ALiBi, the relative bias and the bias together may add to a score of the row, as magnitudes.
  double largest_terms(const Sequence& sequence, std::int64_t h, std::int64_t i) const {
    double table = 0, most = 0;
    for (std::int64_t bucket = 0; bucket < problem_.table.extents[2] && problem_.table.rank; ++bucket)
      table = std::max(table, std::abs(problem_.table.at({0, 0, bucket, h})));
    const double slope = problem_.alibi_slopes.empty() ? 0 : std::abs(of_head(problem_.alibi_slopes, h));
    const std::int64_t position = i - sequence.q_begin + sequence.offset;
    for (std::int64_t j = 0; j < sequence.k_len; ++j) {
      double bias = problem_.bias.rank ? problem_.bias.at({sequence.batch, h, i, sequence.k_begin + j}) : 0;
      if (std::isinf(bias)) continue;  // hidden
      most = std::max(most, std::abs(bias) + slope * std::abs(static_cast<double>(position - j)));
    }
    return table + most;
  }

  const Problem& problem_;
  Dense q_, k_, v_;
};

// Half the distance from a stored value to the next: what rounding into it may have moved. Nothing where sums are
// stored as they are.
template <class T>
double half_ulp(T stored) {
  if constexpr (std::is_same_v<T, Sum<T>>) return 0;
  constexpr bool kWide = std::is_same_v<T, BFloat16>;
  constexpr int kLowest = kWide ? -126 : -14, kDigits = kWide ? 8 : 11;
  int exponent = kLowest;  // |stored| is in [2^exponent, 2^(exponent + 1)), or less where that is the lowest
  if (const double value = widened(stored); value != 0) exponent = std::max(std::ilogb(value), kLowest);
  return std::ldexp(0.5, exponent - (kDigits - 1));
}

template <class T>
void widen(Distance& distance, T answer, double reference, double unit) {
  if (widened(answer) == reference) return;  // -inf among them
  const double error = std::abs(widened(answer) - reference);
  const bool finite = std::isfinite(error);
  const double infinity = std::numeric_limits<double>::infinity();
  distance.absolute = std::max(distance.absolute, finite ? error : infinity);
  const double eps = static_cast<double>(std::numeric_limits<Sum<T>>::epsilon());
  distance.units = std::max(distance.units, finite ? std::max(0.0, error - half_ulp(answer)) / (eps * unit) : infinity);
}

template <class T>
Distance distance_of(const Strided<T>& out, const Strided<Sum<T>>& lse, const Reference& reference) {
  Distance distance;
  for_rows(out.view.extents(), [&](std::int64_t b, std::int64_t h, std::int64_t i) {
    for (std::int64_t c = 0; c < out.view.extent(3); ++c)
      widen(distance, out.view(b, h, i, c), reference.out.view(b, h, i, c), reference.out_unit.view(b, h, i, 0));
    widen(distance, lse.view(b, h, i, 0), reference.lse.view(b, h, i, 0), reference.lse_unit.view(b, h, i, 0));
  });
  return distance;
}

}  // namespace

template <class T>
std::vector<Distance> judge(const Problem& problem, std::span<const Target> targets, int threads) {
  const AttentionShape& shape = problem.shape;
  Random random(problem.seed);
  const auto q = random_queries<T>(random, {shape.batch, shape.heads, shape.q_len, shape.head_dim});
  const Extents keys{shape.batch, shape.kv_heads, shape.kv_len, shape.head_dim};
  const auto k = random_keys<T>(random, keys, problem.sequences);
  const auto v = random_keys<T>(random, {keys[0], keys[1], keys[2], shape.value_dim}, problem.sequences);
  AttentionOptions options = problem.options();
  options.threads = threads;
  const Reference reference(q, k, v, problem);

  std::vector<Distance> distances;
  for (const Target target : targets) {
    options.target = target;
    const Strided<T> out(random, {shape.batch, shape.heads, shape.q_len, shape.value_dim});
    const Strided<Sum<T>> lse(random, {shape.batch, shape.heads, shape.q_len, 1});
    const View3<Sum<T>> lse_rows(lse.view.data(), {shape.batch, shape.heads, shape.q_len},
                                 {lse.view.stride(0), lse.view.stride(1), lse.view.stride(2)});
    attention(q.view, k.view, v.view, out.view, lse_rows, options);
    distances.push_back(distance_of(out, lse, reference));
  }
  return distances;
}

template std::vector<Distance> judge<float>(const Problem&, std::span<const Target>, int);
template std::vector<Distance> judge<double>(const Problem&, std::span<const Target>, int);
template std::vector<Distance> judge<BFloat16>(const Problem&, std::span<const Target>, int);
template std::vector<Distance> judge<Float16>(const Problem&, std::span<const Target>, int);

}  // namespace multihead::cli

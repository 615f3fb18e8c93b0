// SPDX-License-Identifier: Apache-2.0
// Parameters that learn: named matrices with gradients, AdamW, learning-rate schedules, clipping. Library
// multihead_train.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "multihead/dropout.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

template <class T>
struct Parameter {
  std::string name;
  Matrix<T> value, gradient;  // of equal extents; a vector is one row
  bool decays = true;         // weight decay applies: not to biases, norms
};

// Parameters in the order in which they were added. Addresses stay.
template <class T>
class Parameters {
 public:
  // Zeros. Throws bad_option for a name that is empty or given twice.
  Parameter<T>& add(std::string name, std::int64_t rows, std::int64_t columns, bool decays);
  Parameter<T>* find(std::string_view name) noexcept;
  const Parameter<T>* find(std::string_view name) const noexcept;
  std::deque<Parameter<T>>& all() noexcept { return all_; }
  const std::deque<Parameter<T>>& all() const noexcept { return all_; }
  std::int64_t elements() const noexcept;
  void zero_gradients() noexcept;
  // The name of the first gradient that is not all finite, in order; empty: none.
  std::string_view non_finite_gradient() const noexcept;

 private:
  std::deque<Parameter<T>> all_;
};

extern template class Parameters<float>;
extern template class Parameters<double>;

// Numbers for initialisation and data, alike on every machine: words of philox4x32({n, stream, 0, 0}, seed), n = 0, 1,
// .. (its upper half is the third word of the counter).
class Random {
 public:
  Random(std::uint64_t seed, std::uint32_t stream) noexcept : seed_(seed), stream_(stream) {}
  std::uint32_t word() noexcept;
  double uniform() noexcept;                        // [0, 1): a word / 2^32
  std::int64_t below(std::int64_t count) noexcept;  // [0, count), count at least 1, without bias
  double normal() noexcept;                         // Box and Muller 1958
  template <class Range>
  void shuffle(Range& range) noexcept {  // Fisher and Yates
    for (std::int64_t i = static_cast<std::int64_t>(std::size(range)) - 1; i > 0; --i)
      std::swap(range[static_cast<std::size_t>(i)], range[static_cast<std::size_t>(below(i + 1))]);
  }

 private:
  std::uint64_t seed_;
  std::uint32_t stream_;
  std::uint64_t drawn_ = 0;
  std::array<std::uint32_t, 4> words_{};
};

// values = normal numbers of that deviation, or uniform ones of [-bound, bound).
template <class T>
void fill_normal(Matrix<T>& values, double deviation, Random& random);
template <class T>
void fill_uniform(Matrix<T>& values, double bound, Random& random);

// The factor of the learning rate at a step, counted from 0: rises linearly over warm_up steps, then stays, or falls to
// floor over the rest of total along a line, half a cosine, or as 1 / sqrt(step + 1) (Vaswani et al. 2017), 1 at the
// end of warm_up. From total on lines and cosines are at floor.
struct Schedule {
  enum class Kind { constant, linear, cosine, inverse_sqrt };
  Kind kind = Kind::cosine;
  std::int64_t warm_up = 0, total = 0;
  double floor = 0;

  double factor(std::int64_t step) const noexcept;
};

// The global norm of all gradients, sqrt(sum g^2), in double in the order of the parameters.
template <class T>
double gradient_norm(const Parameters<T>& parameters);
// Scales all gradients so that their global norm is at most limit; returns the norm before. Not finite: scales nothing.
template <class T>
double clip_gradients(Parameters<T>& parameters, double limit);

// AdamW (Loshchilov and Hutter 2019), t counted from 1:
//   m = beta1 m + (1 - beta1) g    v = beta2 v + (1 - beta2) g^2
//   p -= rate (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + decay p)
struct AdamWOptions {
  double rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0.01;
};

template <class T>
class AdamW {
 public:
  // parameters must outlive it; those added later are not known. Throws bad_option for an option out of range.
  AdamW(Parameters<T>& parameters, const AdamWOptions& options);
  // One step with rate * factor; gradients are read and left as they are.
  void step(double factor);
  std::int64_t steps() const noexcept { return steps_; }
  const AdamWOptions& options() const noexcept { return options_; }

  // State to keep and to give back, in the order of the parameters.
  std::span<Matrix<T>> first_moments() noexcept { return m_; }
  std::span<Matrix<T>> second_moments() noexcept { return v_; }
  void set_steps(std::int64_t steps) noexcept { steps_ = steps; }

 private:
  Parameters<T>& parameters_;
  AdamWOptions options_;
  std::int64_t steps_ = 0;
  std::vector<Matrix<T>> m_, v_;
};

extern template class AdamW<float>;
extern template class AdamW<double>;

}  // namespace multihead

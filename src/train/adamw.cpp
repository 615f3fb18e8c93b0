// SPDX-License-Identifier: Apache-2.0
// AdamW (Loshchilov and Hutter 2019): one pass over each parameter, which the compiler turns into vectors. Sums,
// products, quotients and roots are rounded alike everywhere, so the bits are the same on every machine.
#include <charconv>
#include <cmath>
#include <limits>
#include <string>

#include "core/float_mode.hpp"
#include "multihead/optimizer.hpp"
#include "train/plain_math.hpp"

namespace multihead {

namespace {

std::string number(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

void check(const char* name, double value, double from, double below) {
  if (value >= from && value < below) return;
  throw Error(ErrorCode::bad_option, std::string("AdamW: ") + name + " is " + number(value) + "; it must be at least " +
                                         number(from) + (below == 1 ? " and below 1" : " and finite"));
}

// What every element of a step shares.
template <class T>
struct Factors {
  T beta1, gain1, beta2, gain2, correct1, correct2, eps, rate, decay;
};

template <class T>
void update(T* __restrict p, T* __restrict m, T* __restrict v, const T* __restrict g, std::int64_t count,
            const Factors<T>& f) noexcept {
  for (std::int64_t i = 0; i < count; ++i) {
    m[i] = f.beta1 * m[i] + f.gain1 * g[i];
    v[i] = f.beta2 * v[i] + f.gain2 * (g[i] * g[i]);
    p[i] -= f.rate * (m[i] / f.correct1 / (std::sqrt(v[i] / f.correct2) + f.eps) + f.decay * p[i]);
  }
}

}  // namespace

template <class T>
AdamW<T>::AdamW(Parameters<T>& parameters, const AdamWOptions& options) : parameters_(parameters), options_(options) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  check("rate", options.rate, 0, kInfinity);
  check("beta1", options.beta1, 0, 1);
  check("beta2", options.beta2, 0, 1);
  check("eps", options.eps, std::numeric_limits<float>::min(), kInfinity);
  check("decay", options.decay, 0, kInfinity);
  for (const Parameter<T>& parameter : parameters.all()) {
    m_.emplace_back(parameter.value.rows(), parameter.value.columns());
    v_.emplace_back(parameter.value.rows(), parameter.value.columns());
  }
}

template <class T>
void AdamW<T>::step(double factor) {
  const FloatMode mode;
  ++steps_;
  const auto as = [](double value) { return static_cast<T>(value); };
  Factors<T> factors{as(options_.beta1),
                     as(1 - options_.beta1),
                     as(options_.beta2),
                     as(1 - options_.beta2),
                     as(1 - plain_power(options_.beta1, steps_)),
                     as(1 - plain_power(options_.beta2, steps_)),
                     as(options_.eps),
                     as(options_.rate * factor),
                     0};
  for (std::size_t i = 0; i < m_.size(); ++i) {
    Parameter<T>& parameter = parameters_.all()[i];
    factors.decay = as(parameter.decays ? options_.decay : 0);
    update(parameter.value.data(), m_[i].data(), v_[i].data(), parameter.gradient.data(), std::ssize(m_[i].values()),
           factors);
  }
}

template class AdamW<float>;
template class AdamW<double>;

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// Named matrices with gradients, their norm, and the limit that is set to it.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "multihead/optimizer.hpp"

namespace multihead {

namespace {

constexpr std::size_t kChains = 16;

// sum x^2 in 16 interleaved chains, joined as a tree.
template <class T>
double sum_of_squares(std::span<const T> values) noexcept {
  std::array<double, kChains> chains{};
  std::size_t i = 0;
  for (; i + kChains <= values.size(); i += kChains)
    for (std::size_t c = 0; c < kChains; ++c) chains[c] += double{values[i + c]} * double{values[i + c]};
  for (std::size_t c = 0; i < values.size(); ++i, ++c) chains[c] += double{values[i]} * double{values[i]};
  for (std::size_t half = kChains / 2; half > 0; half /= 2)
    for (std::size_t c = 0; c < half; ++c) chains[c] += chains[c + half];
  return chains[0];
}

}  // namespace

template <class T>
Parameter<T>& Parameters<T>::add(std::string name, std::int64_t rows, std::int64_t columns, bool decays) {
  if (name.empty()) throw Error(ErrorCode::bad_option, "parameters: a name is empty; each must have one");
  if (find(name))
    throw Error(ErrorCode::bad_option, "parameters: the name '" + name + "' is given twice; it must be given once");
  Matrix<T> value(rows, columns), gradient(rows, columns);
  return all_.emplace_back(Parameter<T>{std::move(name), std::move(value), std::move(gradient), decays});
}

template <class T>
const Parameter<T>* Parameters<T>::find(std::string_view name) const noexcept {
  const auto found =
      std::find_if(all_.begin(), all_.end(), [&](const Parameter<T>& parameter) { return parameter.name == name; });
  return found == all_.end() ? nullptr : &*found;
}

template <class T>
Parameter<T>* Parameters<T>::find(std::string_view name) noexcept {
  return const_cast<Parameter<T>*>(std::as_const(*this).find(name));
}

template <class T>
std::int64_t Parameters<T>::elements() const noexcept {
  std::int64_t sum = 0;
  for (const Parameter<T>& parameter : all_) sum += std::ssize(parameter.value.values());
  return sum;
}

template <class T>
void Parameters<T>::zero_gradients() noexcept {
  for (Parameter<T>& parameter : all_) std::fill_n(parameter.gradient.data(), parameter.gradient.values().size(), T{0});
}

template <class T>
std::string_view Parameters<T>::non_finite_gradient() const noexcept {
  for (const Parameter<T>& parameter : all_) {
    const auto values = parameter.gradient.values();
    // x * 0 is 0, or NaN of what is not finite.
    T sum = 0;
    for (const T value : values) sum += value * T{0};
    if (!(sum == 0)) return parameter.name;
  }
  return {};
}

template class Parameters<float>;
template class Parameters<double>;

template <class T>
double gradient_norm(const Parameters<T>& parameters) {
  double sum = 0;
  for (const Parameter<T>& parameter : parameters.all()) sum += sum_of_squares(parameter.gradient.values());
  return std::sqrt(sum);
}

template <class T>
double clip_gradients(Parameters<T>& parameters, double limit) {
  if (!(limit > 0))
    throw Error(ErrorCode::bad_option,
                "clip_gradients: limit is " + std::to_string(limit) + "; it must be greater than 0");
  const double norm = gradient_norm(parameters);
  if (!std::isfinite(norm) || norm <= limit) return norm;
  const T factor = static_cast<T>(limit / norm);
  for (Parameter<T>& parameter : parameters.all()) {
    T* const values = parameter.gradient.data();
    const std::size_t count = parameter.gradient.values().size();
    for (std::size_t i = 0; i < count; ++i) values[i] *= factor;
  }
  return norm;
}

template double gradient_norm(const Parameters<float>&);
template double gradient_norm(const Parameters<double>&);
template double clip_gradients(Parameters<float>&, double);
template double clip_gradients(Parameters<double>&, double);

}  // namespace multihead

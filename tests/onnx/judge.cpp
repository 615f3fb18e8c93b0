// SPDX-License-Identifier: Apache-2.0
// Distances, bounds and sentences.
#include "judge.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace multihead::onnx {

namespace {

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", value);
  return buffer;
}

// "y[0, 1]".
std::string place(const std::string& tensor, std::size_t at, const Shape& shape) {
  std::string indices;
  auto rest = static_cast<std::int64_t>(at);
  for (std::size_t axis = shape.size(); axis-- > 0; rest /= shape[axis])
    indices = std::to_string(rest % shape[axis]) + (indices.empty() ? "" : ", ") + indices;
  return tensor + "[" + indices + "]";
}

double distance(double got, double expected) {
  if (got == expected || (std::isnan(got) && std::isnan(expected))) return 0;
  const double away = std::fabs(got - expected);
  return std::isnan(away) ? std::numeric_limits<double>::infinity() : away;
}

// Half the distance of a float16 to its neighbour away from zero; 2^-25 for subnormal numbers.
double half_ulp(double value) {
  if (!std::isfinite(value)) return 0;
  const int exponent = value == 0 ? -14 : std::max(std::ilogb(value), -14);
  return std::ldexp(1.0, exponent - 11);
}

template <class T>
std::string element_text(const std::byte* data) {
  T value;
  std::copy_n(data, sizeof value, reinterpret_cast<std::byte*>(&value));
  return text(static_cast<double>(static_cast<float>(value)));
}

std::string element_text(const std::byte* data, ElementType type) {
  switch (type) {
    case ElementType::float16:
      return element_text<Float16>(data);
    case ElementType::float32:
      return element_text<float>(data);
    default:
      return element_text<double>(data);
  }
}

}  // namespace

std::vector<double> exactly(const Array& array) { return array.converted<double>(); }

void Judge::near(const std::string& tensor, std::span<const double> got, const Array& expected) {
  const std::vector<double> wanted = exactly(expected);
  if (got.size() != wanted.size())
    return require(
        false, tensor + " has " + std::to_string(got.size()) + " elements, expected " + std::to_string(wanted.size()));
  double worst_excess = 0, worst_allowed = 0;
  std::size_t worst_at = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double away = distance(got[i], wanted[i]);
    const double allowed = kFloat32 + (expected.type == ElementType::float16 ? half_ulp(wanted[i]) : 0);
    if (away > worst_) worst_ = away, worst_tensor_ = tensor;
    if (away - allowed > worst_excess) worst_excess = away - allowed, worst_at = i, worst_allowed = allowed;
  }
  if (worst_excess > 0)
    require(false, place(tensor, worst_at, expected.shape) + " is " + text(got[worst_at]) + ", expected " +
                       text(wanted[worst_at]) + ", off by " + text(distance(got[worst_at], wanted[worst_at])) +
                       ", allowed " + text(worst_allowed));
}

void Judge::same(const std::string& tensor, std::span<const std::byte> got, const Array& expected) {
  if (got.size() != expected.bytes.size())
    return require(false, tensor + " has " + std::to_string(got.size()) + " bytes, expected " +
                              std::to_string(expected.bytes.size()));
  const auto found = std::mismatch(got.begin(), got.end(), expected.bytes.begin()).first;
  if (found == got.end()) return;
  const std::size_t width = size_of(expected.type), at = static_cast<std::size_t>(found - got.begin()) / width;
  require(false, place(tensor, at, expected.shape) + " is " + element_text(&got[at * width], expected.type) +
                     ", expected the bits of " + element_text(&expected.bytes[at * width], expected.type));
}

void Judge::agree(const std::string& tensor, std::span<const double> got, std::span<const double> other,
                  const Shape& shape, const std::string& what) {
  for (std::size_t i = 0; i < got.size(); ++i)
    if (distance(got[i], other[i]) != 0)
      return require(false, place(tensor, i, shape) + " is " + text(got[i]) + ", " + what + " " + text(other[i]));
}

void Judge::require(bool holds, const std::string& sentence) {
  if (holds) return;
  failures_ += failures_.empty() ? sentence : "; " + sentence;
}

}  // namespace multihead::onnx

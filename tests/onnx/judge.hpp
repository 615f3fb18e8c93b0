// SPDX-License-Identifier: Apache-2.0
// What was computed beside what was expected: the worst element, and whether it lies within what is allowed.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "case.hpp"

namespace multihead::onnx {

// Expected values are the exact ones, rounded once to their type; a result in float32 may be off by this much. The
// scores of the data are below 2 and its values below 10, so this is some ten roundings.
inline constexpr double kFloat32 = 2e-6;

// The elements as double, exactly (of a floating-point type).
std::vector<double> exactly(const Array& array);
template <class T>
std::vector<double> exactly(const std::vector<T>& values) {
  std::vector<double> doubles;
  doubles.reserve(values.size());
  for (const T& value : values) doubles.push_back(static_cast<double>(static_cast<float>(value)));
  return doubles;
}

class Judge {
 public:
  // Each element of got, computed in float32, within kFloat32 of the exact value. Where expected is float16, the exact
  // value is anywhere within half a unit in the last place of what is expected.
  void near(const std::string& tensor, std::span<const double> got, const Array& expected);
  // The same bits.
  void same(const std::string& tensor, std::span<const std::byte> got, const Array& expected);
  // Two computations of ours that must agree in every bit.
  void agree(const std::string& tensor, std::span<const double> got, std::span<const double> other, const Shape& shape,
             const std::string& what);
  void require(bool holds, const std::string& sentence);

  bool failed() const { return !failures_.empty(); }
  // "y[0, 1] is 0.5, expected 0.25, off by 0.25, allowed 2e-06", all that failed.
  const std::string& failures() const { return failures_; }
  // The largest distance that near() met, and where.
  double worst() const { return worst_; }
  const std::string& worst_tensor() const { return worst_tensor_; }

 private:
  std::string failures_, worst_tensor_;
  double worst_ = 0;
};

}  // namespace multihead::onnx

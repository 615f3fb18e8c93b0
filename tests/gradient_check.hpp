// SPDX-License-Identifier: Apache-2.0
// Gradients against central finite differences in float64.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "problem.hpp"

namespace multihead::testing {

constexpr double kStep = 1e-5;

// gradient[i] is the derivative of loss() with respect to values[i]: within 1e-6 of the largest, plus 1e-8. At most
// `most` elements are tried, spread evenly.
template <class Loss>
void expect_gradient(const std::string& what, std::span<double> values, std::span<const double> gradient,
                     const Loss& loss, std::size_t most = 200) {
  ASSERT_EQ(values.size(), gradient.size()) << what;
  double largest = 0;
  for (double g : gradient) largest = std::max(largest, std::fabs(g));
  const double bound = 1e-6 * largest + 1e-8;
  const std::size_t step = std::max<std::size_t>(1, values.size() / most);
  for (std::size_t i = 0; i < values.size(); i += step) {
    const double kept = values[i];
    values[i] = kept + kStep;
    const double above = loss();
    values[i] = kept - kStep;
    const double below = loss();
    values[i] = kept;
    const double wanted = (above - below) / (2 * kStep);
    ASSERT_NEAR(gradient[i], wanted, bound) << what << ", element " << i << " of " << values.size();
  }
}

// The largest difference as a share of the largest value.
template <class T>
double worst_difference(const std::vector<T>& values, const std::vector<double>& wanted) {
  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    largest = std::max(largest, std::fabs(wanted[i]));
    worst = std::max(worst, std::fabs(static_cast<double>(values[i]) - wanted[i]));
  }
  return largest > 0 ? worst / largest : worst;
}

template <class T>
std::vector<T> normal_values(Random& random, std::int64_t count, double scale = 1) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<T>(random.normal() * scale));
  return values;
}

// sum a_i b_i in double.
template <class T>
double weighted_sum(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

}  // namespace multihead::testing

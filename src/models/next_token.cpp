// SPDX-License-Identifier: Apache-2.0
// The token that follows: the likeliest, or one drawn, the same on every machine.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "models/generate_checks.hpp"
#include "models/workspace.hpp"
#include "multihead/dropout.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "next_token";

// e^x of x <= 0, without a library whose last bit is another elsewhere: x = k ln 2 + r, a polynomial in r, |r| <= ln 2
// / 2.
double exp_of(double x) noexcept {
  if (!(x > -700)) return 0;
  constexpr double kLog2e = 0x1.71547652b82fep+0, kHigh = 0x1.62e42fefa3800p-1, kLow = 0x1.ef35793c76730p-45;
  const double k = std::floor(x * kLog2e + 0.5);
  const double r = (x - k * kHigh) - k * kLow;
  double sum = 1;
  for (int n = 14; n > 0; --n) sum = 1 + r * sum / n;
  return sum * std::bit_cast<double>(static_cast<std::uint64_t>(1023 + static_cast<std::int64_t>(k)) << 52);
}

// A number from 0 to below 1 for each position of a seed.
double drawn(std::uint64_t seed, std::int64_t position) noexcept {
  constexpr std::uint32_t kStream = 0x746F6B65;  // apart from those of dropout
  const auto at = static_cast<std::uint64_t>(position);
  const auto words =
      philox4x32({static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at >> 32), 0, kStream}, seed);
  const std::uint64_t bits = (static_cast<std::uint64_t>(words[0]) << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

std::int64_t likeliest(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) fail(kName, ErrorCode::non_finite, "logit " + std::to_string(i) + " is NaN");
    if (logits[i] > logits[best]) best = i;
  }
  if (!std::isfinite(logits[best])) fail(kName, ErrorCode::non_finite, "the largest logit is not finite");
  return static_cast<std::int64_t>(best);
}

// Tokens that may be drawn, and what each weighs beside the likeliest.
struct Candidates {
  std::vector<std::size_t> ids;
  std::vector<double> weights;
  double sum = 0;

  void weigh(std::span<const float> logits, double most, double temperature) {
    weights.reserve(ids.size());
    for (std::size_t id : ids) {
      weights.push_back(exp_of((static_cast<double>(logits[id]) - most) / temperature));
      sum += weights.back();
    }
  }
  // The first ones that together have this share, of those that are in order.
  void keep_share(double share) {
    const double wanted = share * sum;
    double kept = 0;
    std::size_t count = 0;
    while (count < ids.size() && (count == 0 || kept < wanted)) kept += weights[count++];
    ids.resize(count), weights.resize(count);
    sum = kept;
  }
  std::int64_t at(double share) const {
    double left = share * sum;
    std::size_t place = 0, last = 0;
    for (; place < ids.size(); ++place) {
      if (weights[place] > 0) last = place;
      left -= weights[place];
      if (left < 0) break;
    }
    return static_cast<std::int64_t>(ids[place < ids.size() ? place : last]);
  }
};

}  // namespace

std::int64_t next_token(std::span<const float> logits, const GenerateOptions& options, std::int64_t position) {
  check_generate_options(kName, options);
  if (logits.empty()) fail(kName, ErrorCode::shape_mismatch, "logits is empty; there must be a token");
  const DefaultArithmetic arithmetic;
  const std::int64_t best = likeliest(logits);
  const std::size_t most = options.top_k ? static_cast<std::size_t>(*options.top_k) : logits.size();
  if (options.temperature == 0 || most == 1) return best;
  Candidates candidates;
  candidates.ids.resize(logits.size());
  std::iota(candidates.ids.begin(), candidates.ids.end(), std::size_t{0});
  const auto likelier = [&](std::size_t a, std::size_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  if (most < logits.size()) {
    const auto end = candidates.ids.begin() + static_cast<std::ptrdiff_t>(most);
    std::nth_element(candidates.ids.begin(), end, candidates.ids.end(), likelier);
    candidates.ids.resize(most);
  }
  if (most < logits.size() || options.top_p.value_or(1) < 1)
    std::sort(candidates.ids.begin(), candidates.ids.end(), likelier);
  candidates.weigh(logits, logits[static_cast<std::size_t>(best)], options.temperature);
  if (options.top_p.value_or(1) < 1) candidates.keep_share(*options.top_p);
  return candidates.at(drawn(options.seed, position));
}

}  // namespace multihead

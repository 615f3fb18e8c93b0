// SPDX-License-Identifier: Apache-2.0
// BLEU of a corpus (Papineni et al. 2002).
#include <algorithm>
#include <cmath>
#include <map>

#include "core/validate.hpp"
#include "kernels/table.hpp"
#include "multihead/translation.hpp"

namespace multihead {
namespace {

using Tokens = std::vector<std::int64_t>;

std::map<Tokens, std::int64_t> counts(const Tokens& tokens, std::ptrdiff_t n) {
  std::map<Tokens, std::int64_t> found;
  for (auto first = tokens.begin(); tokens.end() - first >= n; ++first) ++found[Tokens(first, first + n)];
  return found;
}

}  // namespace

Bleu bleu(std::span<const Tokens> hypotheses, std::span<const Tokens> references) {
  check_equal("bleu", "hypotheses", "has sentences", std::ssize(hypotheses), "references has", std::ssize(references));
  std::array<std::int64_t, 4> matches{}, all{};
  std::int64_t length = 0, wanted = 0;
  for (std::size_t i = 0; i < hypotheses.size(); ++i) {
    length += std::ssize(hypotheses[i]), wanted += std::ssize(references[i]);
    for (std::size_t n = 0; n < 4; ++n) {
      const auto of_reference = counts(references[i], static_cast<std::ptrdiff_t>(n) + 1);
      for (const auto& [gram, count] : counts(hypotheses[i], static_cast<std::ptrdiff_t>(n) + 1)) {
        const auto found = of_reference.find(gram);
        matches[n] += found == of_reference.end() ? 0 : std::min(count, found->second);  // clipped
        all[n] += count;
      }
    }
  }
  Bleu score;
  double product = 1;
  for (std::size_t n = 0; n < 4; ++n) {
    score.precisions[n] = all[n] == 0 ? 0 : static_cast<double>(matches[n]) / static_cast<double>(all[n]);
    product *= score.precisions[n];
  }
  if (length > 0) {
    double exponent = std::min(0.0, 1 - static_cast<double>(wanted) / static_cast<double>(length));
    choose_kernels({}).kernels<double>().map(MathFunction::exp, &exponent, &score.brevity_penalty, 1);
  }
  score.value = score.brevity_penalty * std::sqrt(std::sqrt(product));
  return score;
}

}  // namespace multihead

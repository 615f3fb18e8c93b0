// SPDX-License-Identifier: Apache-2.0
// Counts of tokens after up to two others, and the probabilities that they give.
#include "train/tasks/trigram.hpp"

#include <algorithm>

#include "train/plain_math.hpp"

namespace multihead {

std::int64_t Trigram::key(std::span<const std::int64_t> ids) const {
  std::int64_t number = 0;
  for (const std::int64_t id : ids) number = number * (vocabulary_ + 1) + id + 1;
  return number;
}

void Trigram::add(std::span<const std::int64_t> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i)
    for (std::size_t before = 0; before <= std::min<std::size_t>(i, 2); ++before) {
      Context& context = contexts_[key(ids.subspan(i - before, before))];
      ++context.tokens;
      if (++followers_[key(ids.subspan(i - before, before + 1))] == 1) ++context.kinds;
    }
}

double Trigram::probability(std::span<const std::int64_t> before, std::int64_t token) const {
  double probability = 1 / static_cast<double>(vocabulary_);
  for (std::size_t length = 0; length <= before.size(); ++length) {
    const std::span<const std::int64_t> last = before.last(length);
    const auto context = contexts_.find(key(last));
    if (context == contexts_.end()) break;
    const auto follower = followers_.find(key(last) * (vocabulary_ + 1) + token + 1);
    const auto kinds = static_cast<double>(context->second.kinds);
    const double count = follower == followers_.end() ? 0 : static_cast<double>(follower->second);
    probability = (count + kinds * probability) / (static_cast<double>(context->second.tokens) + kinds);
  }
  return probability;
}

double Trigram::nats(std::span<const std::int64_t> ids) const {
  double sum = 0;
  for (std::size_t i = 1; i < ids.size(); ++i) {
    const std::size_t before = std::min<std::size_t>(i, 2);
    sum -= plain_log(probability(ids.subspan(i - before, before), ids[i]));
  }
  return sum;
}

}  // namespace multihead

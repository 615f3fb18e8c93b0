// SPDX-License-Identifier: Apache-2.0
// head_labels(): names for what a head does, each by one number over one threshold, most of them published.
#include <algorithm>
#include <limits>
#include <optional>

#include "core/float_mode.hpp"
#include "multihead/inspect.hpp"

namespace multihead {

namespace {

// Clark et al. 2019, "What Does BERT Look At?": their published analysis calls a head broad above 3.8 nats, next or
// previous above half of the weight, and one of [SEP] above 0.6. Gu et al. 2024, "When Attention Sink Emerges in
// Language Models": a sink above 0.3. Voita et al. 2019, "Analyzing Multi-Head Self-Attention": positional from 0.9 of
// the rows on, of offsets -1 and 1.
constexpr double kOffset = 0.5, kSink = 0.3, kSeparator = 0.6, kBroad = 3.8, kPositional = 0.9;
// No threshold is published for these. Local: half of the weight, as for one offset, on all three. Duplicate and
// induction: half of the 0.5 that a causal head gets which looks nowhere else in a text that is said twice, since its
// first half has nothing to repeat (Olsson et al. 2022 measure on such texts).
constexpr double kLocal = 0.5, kPattern = 0.25;
// Of fewer rows a share says nothing: a single one is always at one offset.
constexpr std::int64_t kPositionalRows = 8;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
const char* const kClark = "Clark et al. 2019";
const char* const kProject = "this project";
const char* const kVoita = "Voita et al. 2019";

// The mean that stands where wanted stands in list; NaN where it was not asked for.
template <class List, class Wanted>
double mean_of(const List& list, const std::vector<double>& means, const Wanted& wanted) {
  const auto place = static_cast<std::size_t>(std::find(list.begin(), list.end(), wanted) - list.begin());
  return place < means.size() ? means[place] : kNaN;
}

// The labels that apply, and of those that do not the one that came nearest.
class Labels {
 public:
  // A value above the threshold earns the label, with reaching also one at it. What was not gathered is NaN.
  void consider(HeadLabel label, bool reaching = false) {
    if (label.value != label.value) return;
    if (label.value > label.threshold || (reaching && label.value == label.threshold))
      found_.push_back(std::move(label));
    else if (!nearest_ || label.value / label.threshold > nearest_->value / nearest_->threshold)
      nearest_ = std::move(label);
  }

  std::vector<HeadLabel> take() {
    if (!found_.empty()) return std::move(found_);
    if (!nearest_) return {{"mixed", "nothing was gathered", kNaN, kNaN, kProject}};
    return {{"mixed", "no other label; nearest is " + nearest_->name + ": " + nearest_->measure, nearest_->value,
             nearest_->threshold, nearest_->source}};
  }

 private:
  std::vector<HeadLabel> found_;
  std::optional<HeadLabel> nearest_;
};

}  // namespace

std::vector<HeadLabel> head_labels(const HeadStats& stats, const HeadSummary& summary) {
  const HeadStatsSpec& spec = stats.spec();
  const FloatMode mode;
  const auto offset = [&](std::int64_t wanted) { return mean_of(spec.offsets, summary.offset_mass, wanted); };
  const double previous = offset(-1), self = offset(0), next = offset(1);
  const double first = mean_of(spec.keys, summary.key_mass, std::int64_t{0});
  const double separator = mean_of(spec.classes, summary.class_mass, std::string("separator"));
  const bool neighbour = summary.top_offset == -1 || summary.top_offset == 1;
  Labels labels;
  labels.consider({"previous", "mean weight on the key before", previous, kOffset, kClark});
  labels.consider({"next", "mean weight on the key after", next, kOffset, kClark});
  labels.consider(
      {"self", "mean weight on the row's own key", self, kOffset, "this project, as Clark et al. 2019 for neighbours"});
  labels.consider({"sink", "mean weight on the first key", first, kSink, "Gu et al. 2024"});
  labels.consider({"separator", "mean weight on separators", separator, kSeparator, kClark});
  labels.consider({"broad", "mean entropy in nats", summary.entropy, kBroad, kClark});
  labels.consider({"local", "mean weight on the key before, the row's own and the key after together",
                   previous + self + next, kLocal, kProject});
  labels.consider(
      {"duplicate", "mean weight on other keys of the same token", summary.duplicate_mass, kPattern, kProject});
  labels.consider(
      {"induction", "mean weight on keys after the same token", summary.induction_mass, kPattern, kProject});
  const double at_one = summary.rows < kPositionalRows ? kNaN : summary.top_offset_share;
  labels.consider({"positional", "share of rows whose largest weight is at one offset", at_one, kPositional,
                   neighbour ? kVoita : "this project, after Voita et al. 2019"},
                  true);
  return labels.take();
}

}  // namespace multihead

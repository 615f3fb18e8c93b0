// SPDX-License-Identifier: Apache-2.0
// Whether a text is a story: the grammar tells it again, and takes back each choice whose words are not the text's.
#include <algorithm>

#include "train/tasks/stories.hpp"

namespace multihead::stories {

namespace {

class Retelling final : public Teller {
 public:
  explicit Retelling(std::string_view text) : text_(text) {}

  std::int64_t choose(std::int64_t count) override {
    if (strayed_) return 0;
    if (next_ == choices_.size()) choices_.push_back({0, count});
    return choices_[next_++].taken;
  }
  bool once_in(std::int64_t) override { return choose(2) == 1; }
  void say(const Word& word) override {
    const std::string wanted = spelled(word, place_ == 0);
    if (strayed_) return;
    const std::string_view here = text_.substr(place_, wanted.size());
    const std::size_t end = place_ + wanted.size();
    const bool goes_on = end < text_.size() && text_[end] >= 'a' && text_[end] <= 'z';  // "He" does not begin "Her"
    strayed_ = here != wanted || goes_on;
    if (!strayed_) place_ = end;
    right_ = std::max(right_, place_);
  }

  // Whether it told the whole text and nothing more.
  bool told_all() const { return !strayed_ && place_ == text_.size(); }
  // Takes back the last choice that has another way; false: there is none.
  bool again() {
    choices_.resize(next_);
    while (!choices_.empty() && ++choices_.back().taken == choices_.back().count) choices_.pop_back();
    next_ = place_ = 0;
    strayed_ = false;
    return !choices_.empty();
  }
  std::size_t right() const { return right_; }

 private:
  struct Choice {
    std::int64_t taken, count;
  };
  std::string_view text_;
  std::vector<Choice> choices_;
  std::size_t next_ = 0, place_ = 0, right_ = 0;
  bool strayed_ = false;
};

}  // namespace

Reading read(std::string_view text) {
  Retelling retelling(text);
  Reading reading;
  do {
    tell(retelling, std::nullopt);
    reading.ways += retelling.told_all();
  } while (retelling.again());
  reading.right = retelling.right();
  return reading;
}

}  // namespace multihead::stories

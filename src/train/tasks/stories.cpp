// SPDX-License-Identifier: Apache-2.0
// The grammar of the stories: an opening, then sentences of eleven kinds, each at most once.
#include "train/tasks/stories.hpp"

#include "multihead/optimizer.hpp"
#include "train/plain_math.hpp"
#include "train/tasks/story_words.hpp"

namespace multihead::stories {

namespace {

template <class Item>
const Item& at(std::span<const Item> list, std::int64_t i) {
  return list[static_cast<std::size_t>(i)];
}

class Narrator {
 public:
  Narrator(Teller& teller, std::optional<Part> part) : teller_(teller), part_(part) {}

  void tell() {
    open();
    while (sentences_ < kMostSentences && !(sentences_ >= kFewestSentences && teller_.once_in(4))) go_on();
  }

 private:
  using Texts = std::span<const Text>;

  // ---- words

  void say(Text text) { teller_.say({text, Skill::none, {}}); }
  template <class... More>
  void say(Text first, Text second, More... more) {
    say(first);
    say(second, more...);
  }
  void end() { say("."), ++sentences_; }
  void say_form(Skill skill, Texts forms, std::int64_t i) { teller_.say({at(forms, i), skill, forms}); }
  std::int64_t say_any(Texts list) {
    const std::int64_t chosen = teller_.choose(std::ssize(list));
    say(at(list, chosen));
    return chosen;
  }
  // One of [0, count) for which the rule of the part holds.
  template <class HeldOut>
  std::int64_t choose(std::int64_t count, HeldOut held_out) {
    std::vector<std::int64_t> allowed;
    for (std::int64_t i = 0; i < count; ++i)
      if (!part_ || held_out(i) == (*part_ == Part::held_out)) allowed.push_back(i);
    return at<std::int64_t>(allowed, teller_.choose(std::ssize(allowed)));
  }

  void she() { say_form(Skill::reference, kShe, man_); }
  void she_first() { say_form(Skill::reference, kSheFirst, man_); }
  void hers() { say_form(Skill::reference, kHers, man_); }
  void is(bool many) { say_form(Skill::agreement, kIs, 2 * past_ + (many ? 1 : 0)); }
  void is_thing() { is(many()); }
  void thing() { say_form(Skill::fact, many() ? kMany : kOne, thing_); }
  void colour() { say_form(Skill::fact, kColours, colour_); }
  void name(std::int64_t whose) { say_form(Skill::fact, kNames, whose); }
  void trade() { say_form(Skill::fact, kTrades, trade_); }
  void age() { say_form(Skill::fact, kAges, age_); }
  bool many() const { return number_ > 0; }

  void likes(bool many_do) {
    const std::int64_t verb = teller_.choose(std::ssize(kLikes));
    say(kLikes[verb].forms[past_ ? 2 : many_do ? 1 : 0]);
  }
  // Whether they are many.
  bool relative() {
    const bool several = teller_.choose(2) == 1;
    say_any(several ? kRelatives : kRelative);
    return several;
  }
  void judgement() {
    const std::int64_t degree = teller_.choose(std::ssize(kDegrees) + 1);
    if (degree > 0) say(kDegrees[degree - 1]);
    say_any(kJudgements);
  }
  void somewhere() { say_any(kWhere), say("the"), say_any(kPlaces); }

  // ---- the opening

  void choose_name() {
    name_ = teller_.choose(std::ssize(kNames));
    man_ = name_ >= kWomen;
  }
  void new_age() {
    age_ = teller_.choose(std::ssize(kAges));
    say(age_ < kAgesAfterAn ? "an" : "a", kAges[age_]);
  }
  void new_trade() { say(kTrades[trade_ = teller_.choose(std::ssize(kTrades))]); }
  void name_of_trade() {
    name_ = choose(std::ssize(kNames), [&](std::int64_t i) { return is_held_out_trade(trade_, i); });
    man_ = name_ >= kWomen;
    say(kNames[name_]);
  }
  void new_thing() {
    number_ = say_any(kNumbers);
    colour_ = say_any(kColours);
    thing_ = choose(std::ssize(kOne), [&](std::int64_t i) { return is_held_out_colour(colour_, i); });
    say((many() ? kMany : kOne)[thing_]);
  }

  void open() {
    switch (teller_.choose(3)) {
      case 0:
        choose_name();
        say(kNames[name_], ","), new_age();
        trade_ = choose(std::ssize(kTrades), [&](std::int64_t i) { return is_held_out_trade(i, name_); });
        say(kTrades[trade_], ",", "has");
        break;
      case 1:
        say("The");
        age_ = say_any(kAges);
        new_trade(), name_of_trade(), say("has");
        break;
      default:
        past_ = 1;
        say("Once", "there", "was"), new_age(), new_trade();
        say("named"), name_of_trade(), end();
        she_first(), say("had");
    }
    new_thing(), end();
  }

  // ---- what may follow

  void place() {
    say("The"), thing(), is_thing();
    where_ = say_any(kWhere);
    say("the");
    place_ = say_any(kPlaces);
  }
  void still() {
    say("In"), say_any(kSeasons), say("the"), colour(), thing(), is_thing(), say("still");
    say_form(Skill::fact, kWhere, where_), say("the"), say_form(Skill::fact, kPlaces, place_);
  }
  void wanted() { say("The"), thing(), say("that"), hers(), likes(relative()), is_thing(), judgement(); }
  void of() { say("The"), thing(), say("of", "the"), age(), trade(), is_thing(), judgement(); }
  void meet() {
    say_form(Skill::reference, kHersFirst, man_), say_any(kFriends);
    const std::int64_t other = teller_.choose(kWomen);  // of the other sex: each pronoun has one meaning
    friend_ = man_ ? other : kWomen + other;
    say(kNames[friend_]), likes(false), say_form(Skill::agreement, kIt, many() ? 1 : 0);
  }
  void give() {
    say_any(kWhen), she(), say_form(Skill::agreement, kGives, past_);
    say_form(Skill::reference, kHer, 1 - man_), say("the"), colour(), thing();
    given_ = true;
  }
  void own() {
    say("Now"), name(friend_), say_form(Skill::agreement, kHas, past_);
    say_form(Skill::fact, kNumbers, number_), colour(), thing();
  }
  void habit() {
    say("Every"), say_any(kTimes), she();
    const std::int64_t verb = teller_.choose(std::ssize(kHabits));
    say(kHabits[verb].forms[past_ ? 2 : 0]), somewhere();
  }
  void call() { say("People", kCall[past_]), say_form(Skill::reference, kHer, man_), age(), name(name_); }
  void mood() {
    name(name_), is(false);
    const std::int64_t felt = say_any(kMoods);
    say(",", "and"), hers(), is(relative()), say_form(Skill::fact, kMoods, felt), say("too");
  }
  void best() { she_first(), is(false), say("the", "best"), trade(), say("in", "the"), say_any(kRegions); }

  void go_on() {
    struct Kind {
      void (Narrator::*tell)();
      bool possible;
    };
    const bool met = friend_ >= 0, seen = place_ >= 0;
    const Kind kinds[] = {{&Narrator::place, !seen}, {&Narrator::still, seen}, {&Narrator::wanted, true},
                          {&Narrator::of, !given_},  {&Narrator::meet, !met},  {&Narrator::give, met && !given_},
                          {&Narrator::own, given_},  {&Narrator::habit, true}, {&Narrator::call, true},
                          {&Narrator::mood, true},   {&Narrator::best, true}};
    std::vector<std::size_t> open_kinds;
    for (std::size_t i = 0; i < std::size(kinds); ++i)
      if (kinds[i].possible && !(told_ >> i & 1)) open_kinds.push_back(i);
    const std::size_t kind = at<std::size_t>(open_kinds, teller_.choose(std::ssize(open_kinds)));
    told_ |= std::uint32_t{1} << kind;
    (this->*kinds[kind].tell)();
    end();
  }

  Teller& teller_;
  std::optional<Part> part_;
  std::int64_t sentences_ = 0, past_ = 0, name_ = 0, man_ = 0, trade_ = 0, age_ = 0, number_ = 0, colour_ = 0;
  std::int64_t thing_ = 0, friend_ = -1, where_ = -1, place_ = -1;
  bool given_ = false;
  std::uint32_t told_ = 0;  // bits of kinds
};

class Author final : public Teller {
 public:
  Author(std::uint64_t seed, std::uint64_t index) : random_(seed, static_cast<std::uint32_t>(index + 1)) {}
  std::int64_t choose(std::int64_t count) override {
    nats_ += plain_log(static_cast<double>(count));
    return random_.below(count);
  }
  bool once_in(std::int64_t count) override {
    const bool now = random_.below(count) == 0;
    nats_ -= plain_log(static_cast<double>(now ? 1 : count - 1) / static_cast<double>(count));
    return now;
  }
  void say(const Word& word) override { words_.push_back(word); }
  Story story() { return {std::move(words_), nats_}; }

 private:
  Random random_;
  std::vector<Word> words_;
  double nats_ = 0;
};

bool is_mark(Text word) { return word == "." || word == ","; }

}  // namespace

bool is_held_out_colour(std::int64_t colour, std::int64_t thing) noexcept { return (colour + 3 * thing) % 8 == 0; }
bool is_held_out_trade(std::int64_t trade, std::int64_t name) noexcept { return (trade + 5 * name) % 8 == 0; }

void tell(Teller& teller, std::optional<Part> part) { Narrator(teller, part).tell(); }

Story story(std::uint64_t seed, std::uint64_t index, Part part) {
  Author author(seed, index);
  tell(author, part);
  return author.story();
}

std::string spelled(const Word& word, bool first) {
  return (first || is_mark(word.text) ? "" : " ") + std::string(word.text);
}

std::string text_of(std::span<const Word> words) {
  std::string text;
  for (const Word& word : words) text += spelled(word, text.empty());
  return text;
}

}  // namespace multihead::stories

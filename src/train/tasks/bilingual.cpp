// SPDX-License-Identifier: Apache-2.0
// Sentences out of drawn words: clauses in both languages at once, then French elisions and contractions.
#include "train/tasks/bilingual.hpp"

#include <optional>

#include "multihead/optimizer.hpp"
#include "train/tasks/lexicon.hpp"

namespace multihead::bilingual {
namespace {

enum class Negation { none, simple, never };  // "not" is a word of C++

struct EnglishWord {
  std::string_view text;
  bool main;  // of the main clause
};

struct FrenchWord {
  std::string_view text, before_vowel;  // the other form it has there, empty: none
  std::uint64_t gold;
  std::uint32_t skills = 0;
};

// Who does what a verb says: a noun, or a pronoun (-1).
struct Subject {
  std::int64_t noun;
  Gender gender;
  Number number;
};

struct Predicate {
  Tense tense;
  Negation negation;
};

struct Form {
  std::string_view text, before_vowel;
};

Form form_of(Determiner determiner, Gender gender, Number number) {
  const bool many = number == plural, she = gender == feminine;
  const auto possessive = [&](std::string_view he, std::string_view of_her, std::string_view all) {
    return many ? Form{all, {}} : she ? Form{of_her, he} : Form{he, {}};  // mon amie: the masculine form before a vowel
  };
  switch (determiner) {
    case Determiner::the:
      return many ? Form{"les", {}} : she ? Form{"la", "l'"} : Form{"le", "l'"};
    case Determiner::a:
      return she ? Form{"une", {}} : Form{"un", {}};
    case Determiner::some:
      return {"des", {}};
    case Determiner::nearby:
      return many ? Form{"ces", {}} : she ? Form{"cette", {}} : Form{"ce", "cet"};
    case Determiner::my:
      return possessive("mon", "ma", "mes");
    case Determiner::his:
    case Determiner::her:
      return possessive("son", "sa", "ses");
    case Determiner::our:
      return many ? Form{"nos", {}} : Form{"notre", {}};
    case Determiner::two:
      return {"deux", {}};
    default:
      return {"trois", {}};
  }
}

std::string_view english_of(Determiner determiner, Number number, std::string_view next) {
  constexpr std::string_view kWords[kDeterminers] = {"the", "a",   "some", "this", "my",
                                                     "his", "her", "our",  "two",  "three"};
  if (determiner == Determiner::nearby && number == plural) return "these";
  if (determiner == Determiner::a && std::string_view("aeiou").find(next.front()) != std::string_view::npos)
    return "an";
  return kWords[static_cast<std::size_t>(determiner)];
}

// One sentence in both languages.
class Draft {
 public:
  explicit Draft(Random& random) : random_(random) {}

  void translation();
  void to_be_summarised();
  bool held_out() const { return held_out_; }
  Sentence finish(bool summary);

 private:
  bool chance(std::int64_t of_100) { return random_.below(100) < of_100; }
  template <class Item>
  const Item& one_of(std::span<const Item> items) {
    return items[static_cast<std::size_t>(random_.below(static_cast<std::int64_t>(items.size())))];
  }
  // Each returns the bit of the word that it wrote.
  std::uint64_t say(std::string_view word) {
    english_.push_back({word, main_});
    return std::uint64_t{1} << english_.size();  // bit 0 is what is asked
  }
  std::uint64_t say_all(std::string_view words);
  void write(std::string_view word, std::uint64_t gold, std::uint32_t skills = 0, std::string_view before_vowel = {}) {
    french_.push_back({word, before_vowel, gold, skills});
  }
  void fixed(const Fixed& words);

  std::int64_t draw_adjective(std::int64_t first, std::int64_t count, std::int64_t noun) {
    while (true)
      if (const std::int64_t drawn = first + random_.below(count); fits(drawn, noun)) return drawn;
  }
  Determiner draw_determiner(Number number, bool after_preposition);
  struct Phrase {
    bool being = true, negated = false, after_preposition = false;
    std::int64_t adjectives = 2;  // at most
  };
  Subject noun_phrase(const Phrase& phrase);
  Subject pronoun();
  Predicate draw_predicate();
  std::uint64_t english_verb(const Verb& verb, const Subject& subject, const Predicate& predicate, std::uint64_t& no);
  void verb(std::int64_t which, const Subject& subject, const Predicate& predicate);
  void copula(const Subject& subject, const Predicate& predicate);
  void predicate(const Subject& subject, bool long_form);
  void relative(const Subject& subject);
  void clause();
  Subject main_subject();

  Random& random_;
  std::vector<EnglishWord> english_;
  std::vector<FrenchWord> french_;
  bool main_ = true, held_out_ = false;
};

std::uint64_t Draft::say_all(std::string_view words) {
  std::uint64_t bits = 0;
  for (std::size_t blank; (blank = words.find(' ')) != std::string_view::npos; words.remove_prefix(blank + 1))
    bits |= say(words.substr(0, blank));
  return bits | say(words);
}

void Draft::fixed(const Fixed& words) {
  const std::uint64_t gold = say_all(words.english);
  const std::size_t blank = words.french.find(' ');
  write(words.french.substr(0, blank), gold);
  if (blank == std::string_view::npos) return;
  const std::string_view second = words.french.substr(blank + 1);
  write(second, gold, 0, second == "de" ? "d'" : "qu'");
}

Determiner Draft::draw_determiner(Number number, bool after_preposition) {
  constexpr Determiner kOne[] = {Determiner::the, Determiner::the, Determiner::a,   Determiner::a,     Determiner::my,
                                 Determiner::his, Determiner::her, Determiner::our, Determiner::nearby};
  constexpr Determiner kMany[] = {Determiner::the,    Determiner::the, Determiner::two, Determiner::three,
                                  Determiner::my,     Determiner::his, Determiner::her, Determiner::our,
                                  Determiner::nearby, Determiner::some};
  // "near some houses" has no determiner in French.
  if (number == singular) return one_of(std::span<const Determiner>(kOne));
  return one_of(std::span<const Determiner>(kMany).first(after_preposition ? 9 : 10));
}

Subject Draft::noun_phrase(const Phrase& phrase) {
  const std::int64_t which = phrase.after_preposition ? kBeings + random_.below(kThings)
                             : phrase.being           ? random_.below(kBeings)
                                                      : random_.below(kNouns);
  const Noun& noun = bilingual::noun(which);
  const Number number = chance(50) ? plural : singular;
  const Determiner determiner = draw_determiner(number, phrase.after_preposition);
  std::optional<std::int64_t> before, after;
  if (phrase.adjectives > 0 && chance(35)) before = draw_adjective(0, kBefore, which);
  if (phrase.adjectives > (before ? 1 : 0) && chance(35)) after = draw_adjective(kBefore, kAfter, which);
  for (const auto& each : {before, after}) held_out_ = held_out_ || (each && held_out_adjective(*each, which));

  const std::string_view name = noun.english[number];
  const std::string_view first = before ? adjective(*before).english : after ? adjective(*after).english : name;
  const std::uint64_t of_determiner = say(english_of(determiner, number, first));
  const std::uint64_t of_before = before ? say(adjective(*before).english) : 0;
  const std::uint64_t of_after = after ? say(adjective(*after).english) : 0;
  const std::uint64_t of_noun = say(name);

  Form form = form_of(determiner, noun.gender, number);
  const bool some = determiner == Determiner::some, any = some || determiner == Determiner::a;
  if ((some && before) || (any && phrase.negated)) form = {"de", "d'"};
  write(form.text, of_determiner, article, form.before_vowel);
  const std::uint32_t first_word = before || after ? Skill::order : 0U;
  if (before) {
    const Adjective& adjective = bilingual::adjective(*before);
    const bool other = number == singular && noun.gender == masculine;
    write(adjective.french[noun.gender][number], of_before, agreement | first_word,
          other ? adjective.before_vowel : std::string_view{});
  }
  write(noun.french[number], of_noun, before ? 0 : first_word);
  if (after) write(adjective(*after).french[noun.gender][number], of_after, agreement);
  return {which, noun.gender, number};
}

Subject Draft::pronoun() {
  const std::int64_t which = random_.below(3);
  fixed(pronouns()[static_cast<std::size_t>(which)]);
  return {-1, which == 1 ? feminine : masculine, which == 2 ? plural : singular};
}

Predicate Draft::draw_predicate() {
  const std::int64_t tense = random_.below(4), negation = random_.below(20);
  return {tense < 2    ? present
          : tense == 2 ? past
                       : future,
          negation < 14   ? Negation::none
          : negation < 18 ? Negation::simple
                          : Negation::never};
}

// Returns the bits of the verb and its auxiliary; no: those of the negation.
std::uint64_t Draft::english_verb(const Verb& verb, const Subject& subject, const Predicate& predicate,
                                  std::uint64_t& no) {
  std::uint64_t bits = 0;
  if (predicate.tense == future)
    bits = say("will");
  else if (predicate.negation == Negation::simple)
    bits = say(predicate.tense == past ? "did" : subject.number == plural ? "do" : "does");
  const bool helped = bits != 0;
  if (predicate.negation != Negation::none) no = say(predicate.negation == Negation::simple ? "not" : "never");
  return bits | say(helped || (predicate.tense == present && subject.number == plural) ? verb.base
                    : predicate.tense == past                                          ? verb.past
                                                                                       : verb.third);
}

void Draft::verb(std::int64_t which, const Subject& subject, const Predicate& predicate) {
  const Verb& verb = bilingual::verb(which);
  held_out_ = held_out_ || (subject.noun >= 0 && held_out_verb(subject.noun, which));
  std::uint64_t no = 0;
  const std::uint64_t gold = english_verb(verb, subject, predicate, no);
  if (no) write("ne", no, negation, "n'");
  if (predicate.tense == past)
    write(subject.number == plural ? "ont" : "a", gold, verb_agreement);
  else
    write((predicate.tense == future ? verb.future : verb.present)[subject.number], gold, verb_agreement);
  if (no) write(predicate.negation == Negation::simple ? "pas" : "jamais", no, negation);
  if (predicate.tense == past) write(verb.participle, gold);
}

void Draft::copula(const Subject& subject, const Predicate& predicate) {
  constexpr std::string_view kEnglish[3][2] = {{"is", "are"}, {"was", "were"}, {"will", "will"}};
  constexpr std::string_view kFrench[3][2] = {{"est", "sont"}, {"était", "étaient"}, {"sera", "seront"}};
  const std::int64_t which = draw_adjective(0, kAdjectives, subject.noun);
  const Adjective& adjective = bilingual::adjective(which);
  held_out_ = held_out_ || (subject.noun >= 0 && held_out_adjective(which, subject.noun));
  std::uint64_t gold = say(kEnglish[predicate.tense][subject.number]), no = 0;
  if (predicate.negation != Negation::none) no = say(predicate.negation == Negation::simple ? "not" : "never");
  if (predicate.tense == future) gold |= say("be");
  if (no) write("ne", no, negation, "n'");
  write(kFrench[predicate.tense][subject.number], gold, verb_agreement);
  if (no) write(predicate.negation == Negation::simple ? "pas" : "jamais", no, negation);
  write(adjective.french[subject.gender][subject.number], say(adjective.english), agreement);
}

// long_form: with what a main clause may have, places, adverbs and two adjectives.
void Draft::predicate(const Subject& subject, bool long_form) {
  const Predicate predicate = draw_predicate();
  const std::int64_t kind = random_.below(10);
  if (kind < 2) return copula(subject, predicate);
  if (kind < 6) {
    verb(kIntransitive + random_.below(kTransitive), subject, predicate);
    noun_phrase({.being = false, .negated = predicate.negation != Negation::none, .adjectives = long_form ? 2 : 1});
    return;
  }
  verb(random_.below(kIntransitive), subject, predicate);
  if (!long_form || chance(30)) return;
  if (chance(40)) return fixed(one_of(adverbs()));
  fixed(one_of(places()));
  noun_phrase({.being = false, .after_preposition = true, .adjectives = 1});
}

void Draft::relative(const Subject& subject) {
  write("qui", say("that"));
  predicate(subject, false);
}

// A subordinate clause after its conjunction.
void Draft::clause() { predicate(chance(50) ? pronoun() : noun_phrase({.adjectives = 1}), false); }

Subject Draft::main_subject() { return chance(15) ? pronoun() : noun_phrase({}); }

void Draft::translation() {
  const std::int64_t kind = random_.below(10);
  const Subject subject = kind < 2 ? noun_phrase({.adjectives = 1}) : main_subject();
  if (kind < 2) relative(subject);
  predicate(subject, true);
  if (kind < 8) return;
  fixed(one_of(conjunctions()));
  clause();
}

// French is written along and not used.
void Draft::to_be_summarised() {
  const auto aside = [&](auto&& write_it) {
    main_ = false;
    write_it();
    main_ = true;
  };
  const auto conjunction = [&] {
    if (chance(50))
      fixed(one_of(conjunctions()));
    else
      say(one_of(other_conjunctions()));
    clause();
  };
  // Before, inside and after the main clause; at least one of them.
  const std::int64_t kind = 1 + random_.below(7);
  if (kind & 1)
    aside([&] {
      if (chance(40))
        say_all(one_of(remarks()));
      else
        conjunction();
      say(",");
    });
  const Subject subject = noun_phrase({.adjectives = 1});
  if (kind & 2)
    aside([&] {
      if (chance(60)) return relative(subject);
      say(",");
      say_all(one_of(remarks()));
      say(",");
    });
  predicate(subject, true);
  if (kind & 4) aside(conjunction);
}

// From the right: the form before a vowel depends on the form of what follows. Then de le, de les.
void join(std::vector<FrenchWord>& words) {
  for (std::size_t i = words.size() - 1; i-- > 0;)
    if (!words[i].before_vowel.empty() && begins_with_vowel(words[i + 1].text)) words[i].text = words[i].before_vowel;
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    FrenchWord &first = words[i], &second = words[i + 1];
    if (first.text != "de" || (second.text != "le" && second.text != "les")) continue;
    second = {second.text == "le" ? "du" : "des", {}, first.gold | second.gold, second.skills};
    words.erase(words.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

Sentence Draft::finish(bool summary) {
  Sentence made;
  made.source.push_back(summary ? kSummarise : kTranslate);
  for (const EnglishWord& word : english_) made.source.push_back(source_words().find(word.text));
  if (!summary) {
    join(french_);
    for (const FrenchWord& word : french_) {
      made.target.push_back(target_words().find(word.text));
      made.gold.push_back(word.gold);
      made.skills.push_back(word.skills);
    }
    return made;
  }
  for (std::size_t i = 0; i < english_.size(); ++i) {
    if (!english_[i].main) continue;
    made.target.push_back(english(made.source[i + 1]));
    made.gold.push_back(std::uint64_t{1} << (i + 1));
    made.skills.push_back(Skill::summary);
  }
  return made;
}

}  // namespace

// Both moduli are prime to the factors, so that each row and column has its share.
bool held_out_adjective(std::int64_t adjective, std::int64_t noun) noexcept {
  return (7 * adjective + 3 * noun) % 11 == 4;
}
bool held_out_verb(std::int64_t noun, std::int64_t verb) noexcept { return (5 * verb + 2 * noun) % 11 == 7; }

Sentence sentence(std::uint64_t seed, std::uint64_t index, Part part, Wanted wanted) {
  Random random(seed, static_cast<std::uint32_t>(index) + 1);
  const bool summary = wanted == Wanted::summary || (wanted == Wanted::either && random.below(10) < 3);
  while (true) {
    Draft draft(random);
    if (summary)
      draft.to_be_summarised();
    else
      draft.translation();
    if (draft.held_out() == (part == Part::held_out)) return draft.finish(summary);
  }
}

}  // namespace multihead::bilingual

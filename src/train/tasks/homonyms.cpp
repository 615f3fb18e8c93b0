// SPDX-License-Identifier: Apache-2.0
// Homonyms, the words that tell their senses, and clauses drawn out of them.
#include "train/tasks/homonyms.hpp"

#include <algorithm>

#include "multihead/optimizer.hpp"

namespace multihead::homonyms {
namespace {

constexpr Homonym kTable[kHomonyms] = {
    {"bank", {{{"rive", {"fisherman", "reaches", "muddy", "river"}}, {"banque", {"clerk", "robs", "rich", "safe"}}}}},
    {"bat",
     {{{"chauve-souris", {"biologist", "feeds", "nocturnal", "cave"}},
       {"batte", {"player", "swings", "wooden", "stadium"}}}}},
    {"spring",
     {{{"printemps", {"gardener", "celebrates", "warm", "blossoms"}},
       {"ressort", {"mechanic", "winds", "metal", "clock"}}}}},
    {"bark",
     {{{"écorce", {"woodcutter", "peels", "rough", "oak"}}, {"aboiement", {"postman", "hears", "loud", "kennel"}}}}},
    {"match",
     {{{"allumette", {"smoker", "strikes", "burning", "candle"}}, {"partie", {"referee", "wins", "final", "goal"}}}}},
    {"seal",
     {{{"phoque", {"sailor", "follows", "wet", "iceberg"}}, {"sceau", {"notary", "breaks", "royal", "contract"}}}}},
    {"nail",
     {{{"ongle", {"dancer", "paints", "pink", "finger"}}, {"clou", {"carpenter", "hammers", "rusty", "plank"}}}}},
    {"palm",
     {{{"paume", {"boxer", "opens", "sweaty", "wrist"}}, {"palmier", {"tourist", "climbs", "tropical", "beach"}}}}},
    {"trunk",
     {{{"tronc", {"beaver", "gnaws", "mossy", "forest"}}, {"malle", {"traveller", "packs", "leather", "station"}}}}},
    {"organ",
     {{{"orgue", {"priest", "plays", "baroque", "choir"}},
       {"organe", {"surgeon", "transplants", "healthy", "hospital"}}}}},
    {"chest",
     {{{"poitrine", {"nurse", "examines", "broad", "lungs"}}, {"coffre", {"pirate", "buries", "locked", "treasure"}}}}},
    {"file",
     {{{"lime", {"blacksmith", "sharpens", "steel", "anvil"}},
       {"dossier", {"secretary", "prints", "secret", "office"}}}}},
};
constexpr std::int64_t kNeutral = 6;  // of each slot: they tell nothing
constexpr std::string_view kNeutrals[kSlots][kNeutral] = {{"man", "woman", "neighbour", "friend", "child", "stranger"},
                                                          {"sees", "likes", "wants", "finds", "draws", "knows"},
                                                          {"old", "new", "big", "small", "famous", "strange"},
                                                          {"house", "street", "garden", "town", "wall", "bridge"}};
constexpr std::string_view kJoins[] = {"while", "and", "because", "but"};
constexpr std::int64_t kThe = 4, kNear = 5;
constexpr std::int64_t kFirstHomonym = 6;  // after the joins, "the" and "near"

std::vector<std::string_view> list() {
  std::vector<std::string_view> texts(std::begin(kJoins), std::end(kJoins));
  texts.insert(texts.end(), {"the", "near"});
  for (const Homonym& homonym : kTable) texts.push_back(homonym.english);
  for (const Homonym& homonym : kTable)
    for (const Sense& sense : homonym.senses) texts.insert(texts.end(), sense.clues.begin(), sense.clues.end());
  for (const auto& slot : kNeutrals) texts.insert(texts.end(), std::begin(slot), std::end(slot));
  return texts;
}

constexpr std::int64_t kFirstClue = kFirstHomonym + kHomonyms;
constexpr std::int64_t kFirstNeutral = kFirstClue + kSenses * kSlots;
std::int64_t clue(std::int64_t sense, std::int64_t slot) { return kFirstClue + sense * kSlots + slot; }
std::int64_t neutral(std::int64_t which, std::int64_t slot) { return kFirstNeutral + slot * kNeutral + which; }

struct Clause {
  std::int64_t sense;
  std::array<std::int64_t, kSlots> words;  // -1: left out
  bool place_first;

  bool held_out() const {
    std::int64_t sum = sense;
    for (std::size_t slot = 0; slot < kSlots; ++slot) sum += words[slot] * static_cast<std::int64_t>(2 * slot + 1);
    return sum % 8 == 0;
  }
};

Clause draw_clause(Random& random, std::int64_t sense, std::int64_t only) {
  Clause clause{sense, {}, random.below(3) == 0};
  bool tells = false;
  for (std::int64_t slot = 0; slot < kSlots; ++slot) {
    const bool here = only < 0 ? random.below(2) == 0 : slot == only;
    const bool may_go = slot == adjective || slot == place;
    std::int64_t& word = clause.words[static_cast<std::size_t>(slot)];
    word = here                             ? homonyms::clue(sense, slot)
           : may_go && random.below(10) < 3 ? -1
                                            : neutral(random.below(kNeutral), slot);
    tells = tells || here;
  }
  return tells ? clause : draw_clause(random, sense, only);
}

Clause draw_clause(Random& random, std::int64_t sense, std::int64_t only, Part part) {
  while (true)
    if (const Clause clause = draw_clause(random, sense, only); clause.held_out() == (part == Part::held_out))
      return clause;
}

class Writer {
 public:
  Passage passage;

  void join(Random& random) { add(random.below(std::ssize(kJoins)), -1, -1); }
  void write(const Clause& clause, std::int64_t number) {
    const auto say = [&](std::int64_t word, std::int64_t wanted = -1) { add(word, wanted, number); };
    const auto of_place = [&] {
      if (clause.words[place] >= 0) say(kNear), say(kThe), say(clause.words[place]);
    };
    if (clause.place_first) of_place();
    say(kThe), say(clause.words[subject]), say(clause.words[verb]), say(kThe);
    if (clause.words[adjective] >= 0) say(clause.words[adjective]);
    say(kFirstHomonym + clause.sense / 2, clause.sense);
    if (!clause.place_first) of_place();
  }

 private:
  void add(std::int64_t word, std::int64_t wanted, std::int64_t clause) {
    passage.words.push_back(word), passage.wanted.push_back(wanted), passage.clause.push_back(clause);
  }
};

// Whether these words are a clause that is held out, its homonym having that sense.
bool reads_as_held_out(std::span<const std::int64_t> words, std::int64_t sense) {
  const std::int64_t homonym = std::find(words.begin(), words.end(), kFirstHomonym + sense / 2) - words.begin();
  const bool place_first = words.front() == kNear;
  const std::int64_t begin = place_first ? 3 : 0, after = std::ssize(words) - homonym;
  if (homonym < begin + 4 || homonym > begin + 5) return false;
  const auto at = [&](std::int64_t i) { return words[static_cast<std::size_t>(i)]; };
  const std::int64_t where = place_first ? at(2) : after == 4 ? words.back() : -1;
  const Clause clause{
      sense, {at(begin + 1), at(begin + 2), homonym == begin + 5 ? at(begin + 4) : -1, where}, place_first};
  for (std::int64_t slot = 0; slot < kSlots; ++slot) {
    const std::int64_t word = clause.words[static_cast<std::size_t>(slot)];
    const bool tells_nothing = word >= neutral(0, slot) && word < neutral(kNeutral, slot);
    if (word >= 0 && word != clue(sense, slot) && !tells_nothing) return false;
  }
  Writer writer;
  writer.write(clause, 0);
  return std::equal(words.begin(), words.end(), writer.passage.words.begin(), writer.passage.words.end()) &&
         clause.held_out();
}

bool has_held_out_clause(const Passage& passage) {
  for (std::size_t at = 0; at < passage.words.size(); ++at) {
    if (passage.wanted[at] < 0) continue;
    const auto first = std::find(passage.clause.begin(), passage.clause.end(), passage.clause[at]);
    const auto count = std::count(first, passage.clause.end(), passage.clause[at]);
    const std::span words(passage.words.data() + (first - passage.clause.begin()), static_cast<std::size_t>(count));
    if (reads_as_held_out(words, passage.wanted[at])) return true;
  }
  return false;
}

void spoil(Passage& passage, double probability, Random& random) {
  for (std::size_t i = 0; i < passage.words.size(); ++i) {
    // Drawn for every word, so that more is spoilt of the same passage where the probability is larger.
    const bool now = random.uniform() < probability;
    const std::int64_t other = random.below(words().size() - kHomonyms);
    if (now && passage.wanted[i] < 0) passage.words[i] = other < kFirstHomonym ? other : other + kHomonyms;
  }
}

Passage drawn(Random& random, Part part, const PassageSpec& spec) {
  const std::int64_t sense = random.below(kSenses), place_of_first = random.below(spec.others + 1);
  Writer writer;
  for (std::int64_t i = 0; i <= spec.others; ++i) {
    if (i > 0) writer.join(random);
    const bool again = random.below(2) == 0;
    const std::int64_t other = again ? sense / 2 * 2 + random.below(2) : random.below(kSenses);
    writer.write(
        i == place_of_first ? draw_clause(random, sense, spec.only, part) : draw_clause(random, other, -1, part), i);
  }
  Passage passage;
  do {
    passage = writer.passage;
    spoil(passage, spec.spoilt, random);
  } while (part == Part::training && has_held_out_clause(passage));
  return passage;
}

Random random_of(std::uint64_t seed, std::uint64_t index) { return {seed, static_cast<std::uint32_t>(index) + 1}; }

}  // namespace

const Homonym& homonym(std::int64_t i) noexcept { return kTable[static_cast<std::size_t>(i)]; }

const Vocabulary& words() {
  static const Vocabulary all(list());
  return all;
}

std::string_view french(std::int64_t sense) noexcept {
  return homonym(sense / 2).senses[static_cast<std::size_t>(sense % 2)].french;
}

std::int64_t first_sense(std::int64_t word) noexcept {
  return word >= kFirstHomonym && word < kFirstClue ? (word - kFirstHomonym) * 2 : -1;
}

Passage passage(std::uint64_t seed, std::uint64_t index, Part part, const PassageSpec& spec) {
  Random random = random_of(seed, index);
  return drawn(random, part, spec);
}

Passage mixed_passage(std::uint64_t seed, std::uint64_t index, Part part) {
  Random random = random_of(seed, index);
  PassageSpec spec;
  spec.others = random.below(4);
  spec.spoilt = 0.4 * random.uniform();
  return drawn(random, part, spec);
}

void vote(const Passage& passage, bool whole, double& right, std::int64_t& asked) {
  for (std::size_t at = 0; at < passage.words.size(); ++at) {
    const std::int64_t wanted = passage.wanted[at];
    if (wanted < 0) continue;
    std::int64_t lead = 0;
    for (std::size_t i = 0; i < passage.words.size(); ++i) {
      const std::int64_t sense = (passage.words[i] - kFirstClue) / kSlots;
      const bool tells = passage.words[i] >= kFirstClue && passage.words[i] < kFirstNeutral && sense / 2 == wanted / 2;
      if (tells && (whole || passage.clause[i] == passage.clause[at])) lead += sense == wanted ? 1 : -1;
    }
    right += lead > 0 ? 1 : lead == 0 ? 0.5 : 0;
    ++asked;
  }
}

}  // namespace multihead::homonyms

// SPDX-License-Identifier: Apache-2.0
// English words and their French: nouns, adjectives, verbs and the words that do not change.
#include "train/tasks/lexicon.hpp"

namespace multihead::bilingual {
namespace {

constexpr Noun kBeingNouns[] = {
    {{"man", "men"}, {"homme", "hommes"}, masculine},      {{"woman", "women"}, {"femme", "femmes"}, feminine},
    {{"boy", "boys"}, {"garçon", "garçons"}, masculine},   {{"girl", "girls"}, {"fille", "filles"}, feminine},
    {{"king", "kings"}, {"roi", "rois"}, masculine},       {{"queen", "queens"}, {"reine", "reines"}, feminine},
    {{"sister", "sisters"}, {"sœur", "sœurs"}, feminine},  {{"uncle", "uncles"}, {"oncle", "oncles"}, masculine},
    {{"cat", "cats"}, {"chat", "chats"}, masculine},       {{"dog", "dogs"}, {"chien", "chiens"}, masculine},
    {{"bird", "birds"}, {"oiseau", "oiseaux"}, masculine}, {{"horse", "horses"}, {"cheval", "chevaux"}, masculine},
    {{"cow", "cows"}, {"vache", "vaches"}, feminine},      {{"bee", "bees"}, {"abeille", "abeilles"}, feminine},
    {{"mouse", "mice"}, {"souris", "souris"}, feminine},
};

constexpr Noun kThingNouns[] = {
    {{"house", "houses"}, {"maison", "maisons"}, feminine},
    {{"tree", "trees"}, {"arbre", "arbres"}, masculine},
    {{"flower", "flowers"}, {"fleur", "fleurs"}, feminine},
    {{"garden", "gardens"}, {"jardin", "jardins"}, masculine},
    {{"book", "books"}, {"livre", "livres"}, masculine},
    {{"letter", "letters"}, {"lettre", "lettres"}, feminine},
    {{"church", "churches"}, {"église", "églises"}, feminine},
    {{"boat", "boats"}, {"bateau", "bateaux"}, masculine},
    {{"river", "rivers"}, {"rivière", "rivières"}, feminine},
    {{"island", "islands"}, {"île", "îles"}, feminine},
    {{"car", "cars"}, {"voiture", "voitures"}, feminine},
    {{"egg", "eggs"}, {"œuf", "œufs"}, masculine},
};

constexpr Adjective kAdjectivesBefore[] = {
    {"small", {{{"petit", "petits"}, {"petite", "petites"}}}, ""},
    {"big", {{{"grand", "grands"}, {"grande", "grandes"}}}, ""},
    {"beautiful", {{{"beau", "beaux"}, {"belle", "belles"}}}, "bel"},
    {"old", {{{"vieux", "vieux"}, {"vieille", "vieilles"}}}, "vieil"},
    {"new", {{{"nouveau", "nouveaux"}, {"nouvelle", "nouvelles"}}}, "nouvel"},
    {"young", {{{"jeune", "jeunes"}, {"jeune", "jeunes"}}}, ""},
};

constexpr Adjective kAdjectivesAfter[] = {
    {"black", {{{"noir", "noirs"}, {"noire", "noires"}}}, ""},
    {"white", {{{"blanc", "blancs"}, {"blanche", "blanches"}}}, ""},
    {"red", {{{"rouge", "rouges"}, {"rouge", "rouges"}}}, ""},
    {"green", {{{"vert", "verts"}, {"verte", "vertes"}}}, ""},
    {"grey", {{{"gris", "gris"}, {"grise", "grises"}}}, ""},
    {"strong", {{{"fort", "forts"}, {"forte", "fortes"}}}, ""},
    {"happy", {{{"heureux", "heureux"}, {"heureuse", "heureuses"}}}, ""},
    {"sad", {{{"triste", "tristes"}, {"triste", "tristes"}}}, ""},
    {"tired", {{{"fatigué", "fatigués"}, {"fatiguée", "fatiguées"}}}, ""},
    {"intelligent", {{{"intelligent", "intelligents"}, {"intelligente", "intelligentes"}}}, ""},
    {"strange", {{{"étrange", "étranges"}, {"étrange", "étranges"}}}, ""},
};

constexpr Verb kVerbsWithout[] = {
    {"sleep", "sleeps", "slept", {"dort", "dorment"}, {"dormira", "dormiront"}, "dormi"},
    {"run", "runs", "ran", {"court", "courent"}, {"courra", "courront"}, "couru"},
    {"laugh", "laughs", "laughed", {"rit", "rient"}, {"rira", "riront"}, "ri"},
    {"wait", "waits", "waited", {"attend", "attendent"}, {"attendra", "attendront"}, "attendu"},
    {"sing", "sings", "sang", {"chante", "chantent"}, {"chantera", "chanteront"}, "chanté"},
    {"swim", "swims", "swam", {"nage", "nagent"}, {"nagera", "nageront"}, "nagé"},
    {"work", "works", "worked", {"travaille", "travaillent"}, {"travaillera", "travailleront"}, "travaillé"},
    {"listen", "listens", "listened", {"écoute", "écoutent"}, {"écoutera", "écouteront"}, "écouté"},
};

constexpr Verb kVerbsWith[] = {
    {"see", "sees", "saw", {"voit", "voient"}, {"verra", "verront"}, "vu"},
    {"want", "wants", "wanted", {"veut", "veulent"}, {"voudra", "voudront"}, "voulu"},
    {"lose", "loses", "lost", {"perd", "perdent"}, {"perdra", "perdront"}, "perdu"},
    {"take", "takes", "took", {"prend", "prennent"}, {"prendra", "prendront"}, "pris"},
    {"love", "loves", "loved", {"aime", "aiment"}, {"aimera", "aimeront"}, "aimé"},
    {"find", "finds", "found", {"trouve", "trouvent"}, {"trouvera", "trouveront"}, "trouvé"},
    {"bring", "brings", "brought", {"apporte", "apportent"}, {"apportera", "apporteront"}, "apporté"},
    {"admire", "admires", "admired", {"admire", "admirent"}, {"admirera", "admireront"}, "admiré"},
};

constexpr Fixed kAdverbs[] = {
    {"here", "ici"}, {"today", "aujourd'hui"}, {"slowly", "lentement"}, {"outside", "dehors"}};
constexpr Fixed kPlaces[] = {
    {"in", "dans"}, {"on", "sur"}, {"under", "sous"}, {"behind", "derrière"}, {"near", "près de"}};
constexpr Fixed kConjunctions[] = {{"because", "parce que"}, {"when", "quand"}};
constexpr std::string_view kOtherConjunctions[] = {"although", "while", "before", "after"};
constexpr std::string_view kRemarks[] = {"of course", "they say", "as we know", "in the end"};
constexpr Fixed kPronouns[] = {{"he", "il"}, {"she", "elle"}, {"they", "ils"}};

static_assert(std::size(kBeingNouns) == kBeings && std::size(kThingNouns) == kThings);
static_assert(std::size(kAdjectivesBefore) == kBefore && std::size(kAdjectivesAfter) == kAfter);
static_assert(std::size(kVerbsWithout) == kIntransitive && std::size(kVerbsWith) == kTransitive);

template <class Item>
const Item& of_two(std::span<const Item> first, std::span<const Item> second, std::int64_t i) noexcept {
  const auto at = static_cast<std::size_t>(i);
  return at < first.size() ? first[at] : second[at - first.size()];
}

}  // namespace

std::span<const Noun> beings() noexcept { return kBeingNouns; }
std::span<const Noun> things() noexcept { return kThingNouns; }
std::span<const Adjective> adjectives_before() noexcept { return kAdjectivesBefore; }
std::span<const Adjective> adjectives_after() noexcept { return kAdjectivesAfter; }
std::span<const Verb> intransitive() noexcept { return kVerbsWithout; }
std::span<const Verb> transitive() noexcept { return kVerbsWith; }
std::span<const Fixed> adverbs() noexcept { return kAdverbs; }
std::span<const Fixed> places() noexcept { return kPlaces; }
std::span<const Fixed> conjunctions() noexcept { return kConjunctions; }
std::span<const std::string_view> other_conjunctions() noexcept { return kOtherConjunctions; }
std::span<const std::string_view> remarks() noexcept { return kRemarks; }
std::span<const Fixed> pronouns() noexcept { return kPronouns; }

const Noun& noun(std::int64_t i) noexcept { return of_two(beings(), things(), i); }
const Adjective& adjective(std::int64_t i) noexcept { return of_two(adjectives_before(), adjectives_after(), i); }
const Verb& verb(std::int64_t i) noexcept { return of_two(intransitive(), transitive(), i); }

bool fits(std::int64_t adjective, std::int64_t noun) noexcept {
  constexpr std::int64_t kYoung = 5, kStrange = kAdjectives - 1;
  if (adjective >= kBefore && adjective < kBefore + kColours) return noun >= kPersons;
  return noun < kBeings || (adjective != kYoung && (adjective < kBefore || adjective == kStrange));
}

bool begins_with_vowel(std::string_view french) noexcept {
  // The h of these words is mute; letters beyond ASCII are two bytes.
  for (const std::string_view vowel : {"a", "e", "i", "o", "u", "h", "â", "é", "ê", "è", "î", "ô", "œ"})
    if (french.starts_with(vowel)) return true;
  return false;
}

}  // namespace multihead::bilingual

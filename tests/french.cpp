// SPDX-License-Identifier: Apache-2.0
// A reader of simple French: descent by recursion over its own little dictionary.
#include "french.hpp"

#include <map>
#include <set>
#include <sstream>
#include <stdexcept>

namespace multihead::testing {
namespace {

// English singular, plural; French singular, plural, gender.
constexpr const char* kNouns = R"(
man men homme hommes m       woman women femme femmes f      boy boys garçon garçons m    girl girls fille filles f
king kings roi rois m        queen queens reine reines f     sister sisters sœur sœurs f  uncle uncles oncle oncles m
cat cats chat chats m        dog dogs chien chiens m         bird birds oiseau oiseaux m  horse horses cheval chevaux m
cow cows vache vaches f      bee bees abeille abeilles f     mouse mice souris souris f   house houses maison maisons f
tree trees arbre arbres m    flower flowers fleur fleurs f   garden gardens jardin jardins m
book books livre livres m    letter letters lettre lettres f church churches église églises f
boat boats bateau bateaux m  river rivers rivière rivières f island islands île îles f
car cars voiture voitures f  egg eggs œuf œufs m)";
// Masculine and feminine, each singular and plural; where it stands; masculine singular before a vowel.
constexpr const char* kAdjectives = R"(
small petit petite petits petites before petit     big grand grande grands grandes before grand
beautiful beau belle beaux belles before bel       old vieux vieille vieux vieilles before vieil
new nouveau nouvelle nouveaux nouvelles before nouvel  young jeune jeune jeunes jeunes before jeune
black noir noire noirs noires after -   white blanc blanche blancs blanches after -
red rouge rouge rouges rouges after -   green vert verte verts vertes after -
grey gris grise gris grises after -     strong fort forte forts fortes after -
happy heureux heureuse heureux heureuses after -   sad triste triste tristes tristes after -
tired fatigué fatiguée fatigués fatiguées after -  strange étrange étrange étranges étranges after -
intelligent intelligent intelligente intelligents intelligentes after -)";
// English forms; French present and future, each singular and plural, participle; whether it wants an object.
constexpr const char* kVerbs = R"(
sleep sleeps slept dort dorment dormira dormiront dormi no
run runs ran court courent courra courront couru no
laugh laughs laughed rit rient rira riront ri no
wait waits waited attend attendent attendra attendront attendu no
sing sings sang chante chantent chantera chanteront chanté no
swim swims swam nage nagent nagera nageront nagé no
work works worked travaille travaillent travaillera travailleront travaillé no
listen listens listened écoute écoutent écoutera écouteront écouté no
see sees saw voit voient verra verront vu yes
want wants wanted veut veulent voudra voudront voulu yes
lose loses lost perd perdent perdra perdront perdu yes
take takes took prend prennent prendra prendront pris yes
love loves loved aime aiment aimera aimeront aimé yes
find finds found trouve trouvent trouvera trouveront trouvé yes
bring brings brought apporte apportent apportera apporteront apporté yes
admire admires admired admire admirent admirera admireront admiré yes)";

struct Features {
  std::string english;
  std::set<std::string> as;  // "ms", "mp", "fs", "fp": gender and number that it may have
  bool before = false, object = false;
};

struct Dictionary {
  std::map<std::string, Features> nouns, adjectives, finite, participles;
  std::map<std::string, std::string> bases, short_forms;  // short_forms: "bel" by "beau"

  Dictionary() {
    std::istringstream nouns_in(kNouns), adjectives_in(kAdjectives), verbs_in(kVerbs);
    std::string e[3], f[7];
    while (nouns_in >> e[0] >> e[1] >> f[0] >> f[1] >> f[2]) {
      bases[e[0]] = bases[e[1]] = e[0];
      add(nouns, f[0], e[0], f[2] + "s"), add(nouns, f[1], e[0], f[2] + "p");
    }
    while (adjectives_in >> e[0] >> f[0] >> f[1] >> f[2] >> f[3] >> f[4] >> f[5]) {
      bases[e[0]] = e[0];
      add(adjectives, f[0], e[0], "ms"), add(adjectives, f[1], e[0], "fs");
      add(adjectives, f[2], e[0], "mp"), add(adjectives, f[3], e[0], "fp");
      if (f[4] == "before" && f[5] != f[0]) short_forms[f[0]] = f[5], add(adjectives, f[5], e[0], "ms");
      for (int i = 0; i < 6; ++i)
        if (i != 4 && f[i] != "-") adjectives[f[i]].before = f[4] == "before";
    }
    while (verbs_in >> e[0] >> e[1] >> e[2] >> f[0] >> f[1] >> f[2] >> f[3] >> f[4] >> f[5]) {
      for (const std::string& form : e) bases[form] = e[0];
      for (int i = 0; i < 4; ++i) add(finite, f[i], e[0], i % 2 == 0 ? "s" : "p");
      add(participles, f[4], e[0], "");
      for (int i = 0; i < 4; ++i) finite[f[i]].object = f[5] == "yes";
      participles[f[4]].object = f[5] == "yes";
    }
  }
  static void add(std::map<std::string, Features>& words, const std::string& word, const std::string& english,
                  const std::string& as) {
    words[word].english = english, words[word].as.insert(as);
  }
};

const Dictionary& dictionary() {
  static const Dictionary words;
  return words;
}

bool vowel(const std::string& word) {
  static const std::set<std::string> kFirst{"é", "ê", "î", "œ"};
  return std::string("aeiouh").find(word[0]) != std::string::npos || kFirst.count(word.substr(0, 2)) > 0;
}

struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Reader {
 public:
  explicit Reader(const std::vector<std::string>& tokens) : tokens_(tokens) {}
  French found;

  void sentence() {
    elisions();
    clause();
    if (at_ < tokens_.size()) {
      if (take("parce"))
        need(take("que") || take("qu'"), "parce stands without que");
      else
        need(take("quand"), "more than a clause");
      clause();
    }
    need(at_ == tokens_.size(), "words are left over");
  }

 private:
  struct Phrase {
    std::string noun, as;
  };

  void need(bool holds, const std::string& rule) const {
    if (!holds) throw Broken(rule + " at word " + std::to_string(at_));
  }
  std::string here() const { return at_ < tokens_.size() ? tokens_[at_] : std::string(); }
  bool take(const std::string& word) {
    if (here() != word) return false;
    return ++at_, true;
  }

  void elisions() {
    const std::set<std::string> full{"le", "la", "de", "ne", "que", "ce", "ma", "sa"}, cut{"l'", "d'", "n'", "qu'"};
    for (at_ = 0; at_ + 1 < tokens_.size(); ++at_) {
      need(!full.count(here()) || !vowel(tokens_[at_ + 1]), here() + " before a vowel");
      need(!cut.count(here()) || vowel(tokens_[at_ + 1]), here() + " before a consonant");
      need(here() != "de" || (tokens_[at_ + 1] != "le" && tokens_[at_ + 1] != "les"), "de is not contracted");
    }
    at_ = 0;
  }

  // What a determiner may go with.
  static std::set<std::string> determiner(const std::string& word) {
    if (word == "le" || word == "un" || word == "ce" || word == "cet" || word == "du") return {"ms"};
    if (word == "la" || word == "une" || word == "cette" || word == "ma" || word == "sa") return {"fs"};
    if (word == "l'" || word == "notre" || word == "mon" || word == "son") return {"ms", "fs"};
    if (word == "les" || word == "des" || word == "ces" || word == "mes" || word == "ses" || word == "nos" ||
        word == "deux" || word == "trois")
      return {"mp", "fp"};
    if (word == "de" || word == "d'") return {"ms", "fs", "mp", "fp"};
    return {};
  }

  enum class After { nothing, negation, contraction };
  Phrase noun_phrase(After after_what = After::nothing) {
    const std::string article = here();
    const std::set<std::string> allowed = determiner(article);
    need(!allowed.empty(), "'" + article + "' is no determiner");
    ++at_;
    const bool before_vowel = vowel(here());
    std::string before;
    if (const auto found_before = dictionary().adjectives.find(here());
        found_before != dictionary().adjectives.end() && found_before->second.before)
      before = here(), ++at_;
    const auto noun = dictionary().nouns.find(here());
    need(noun != dictionary().nouns.end(), "'" + here() + "' is no noun");
    const bool noun_with_vowel = vowel(here());
    ++at_;
    std::set<std::string> as;
    for (const std::string& one : noun->second.as)
      if (allowed.count(one)) as.insert(one);
    need(!as.empty(), article + " does not agree with its noun");
    if (article == "cet") need(before_vowel, "cet before a consonant");
    if ((article == "mon" || article == "son") && as.count("fs")) need(before_vowel, article + " of a feminine noun");
    if (!before.empty()) as = agreeing(before, as, noun->second.english);
    if (const auto cut = dictionary().short_forms.find(before); cut != dictionary().short_forms.end())
      need(!noun_with_vowel || !as.count("ms") || as.count("mp"), before + " before a vowel");
    for (const auto& [full, cut] : dictionary().short_forms) need(before != cut || noun_with_vowel, "wrong " + cut);
    if (const auto after = dictionary().adjectives.find(here());
        after != dictionary().adjectives.end() && !after->second.before)
      as = agreeing(here(), as, noun->second.english), ++at_;
    const bool many = as.count("mp") || as.count("fp");
    if (after_what == After::negation)
      need(article != "un" && article != "une" && article != "des", article + " of a negated object");
    else if (article == "des")
      need(after_what == After::contraction || before.empty(), "des before an adjective");
    else if (article == "de" || article == "d'")
      need(many && !before.empty(), "de for no reason");
    return {noun->second.english, *as.begin()};
  }

  std::set<std::string> agreeing(const std::string& adjective, const std::set<std::string>& as,
                                 const std::string& noun) {
    const Features& features = dictionary().adjectives.at(adjective);
    found.adjective_of_noun.emplace_back(features.english, noun);
    std::set<std::string> both;
    for (const std::string& one : as)
      if (features.as.count(one)) both.insert(one);
    need(!both.empty(), adjective + " does not agree with " + noun);
    return both;
  }

  void clause() {
    if (take("il")) return predicate({"", "ms"});
    if (take("elle")) return predicate({"", "fs"});
    if (take("ils")) return predicate({"", "mp"});
    const Phrase subject = noun_phrase();
    if (take("qui")) predicate(subject);
    predicate(subject);
  }

  void predicate(const Phrase& subject) {
    static const std::map<std::string, std::string> kCopula{{"est", "s"},     {"sont", "p"}, {"était", "s"},
                                                            {"étaient", "p"}, {"sera", "s"}, {"seront", "p"}};
    const std::string number = subject.as.substr(1);
    const bool negated = take("ne") || take("n'");
    const auto rest_of_negation = [&] { need((take("pas") || take("jamais")) == negated, "half a negation"); };
    if (const auto copula = kCopula.find(here()); copula != kCopula.end()) {
      need(copula->second == number, here() + " does not agree with its subject");
      ++at_;
      rest_of_negation();
      need(dictionary().adjectives.count(here()) > 0, "'" + here() + "' is no adjective");
      for (const auto& [full, cut] : dictionary().short_forms) need(here() != cut, cut + " without a noun");
      const std::string adjective = here();
      if (!subject.noun.empty()) found.adjective_of_noun.emplace_back(english_of_french(adjective), subject.noun);
      need(dictionary().adjectives.at(adjective).as.count(subject.as) > 0, adjective + " does not agree");
      ++at_;
      return;
    }
    const bool compound = here() == "a" || here() == "ont";
    if (compound) {
      need((here() == "a") == (number == "s"), here() + " does not agree with its subject");
      ++at_;
      rest_of_negation();
    }
    const auto& forms = compound ? dictionary().participles : dictionary().finite;
    const auto verb = forms.find(here());
    need(verb != forms.end(), "'" + here() + "' is no verb");
    need(compound || verb->second.as.count(number), here() + " does not agree with its subject");
    if (!subject.noun.empty()) found.noun_of_verb.emplace_back(subject.noun, verb->second.english);
    ++at_;
    if (!compound) rest_of_negation();
    if (verb->second.object)
      noun_phrase(negated ? After::negation : After::nothing);
    else
      place_or_adverb();
  }

  void place_or_adverb() {
    for (const char* adverb : {"ici", "aujourd'hui", "lentement", "dehors"})
      if (take(adverb)) return;
    if (take("près")) {
      if (take("de") || take("d'")) return void(noun_phrase());
      need(here() == "du" || here() == "des", "près without de");
      return void(noun_phrase(After::contraction));
    }
    for (const char* place : {"dans", "sur", "sous", "derrière"})
      if (take(place)) return void(noun_phrase());
  }

  const std::vector<std::string>& tokens_;
  std::size_t at_ = 0;
};

}  // namespace

French read_french(const std::vector<std::string>& tokens) {
  Reader reader(tokens);
  try {
    reader.sentence();
  } catch (const Broken& broken) {
    reader.found.wrong = broken.what();
  }
  return reader.found;
}

std::string english_of_french(const std::string& french) {
  for (const auto* words :
       {&dictionary().nouns, &dictionary().adjectives, &dictionary().finite, &dictionary().participles})
    if (const auto found = words->find(french); found != words->end()) return found->second.english;
  return {};
}

std::string base_of_english(const std::string& english) {
  const auto found = dictionary().bases.find(english);
  return found == dictionary().bases.end() ? std::string() : found->second;
}

}  // namespace multihead::testing

// SPDX-License-Identifier: Apache-2.0
// The words of the little grammar: English beside French, with what decides French forms.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace multihead::bilingual {

enum Number { singular, plural };
enum Gender { masculine, feminine };

struct Noun {
  std::array<std::string_view, 2> english, french;  // by Number
  Gender gender;
};

struct Adjective {
  std::string_view english;
  std::array<std::array<std::string_view, 2>, 2> french;  // by Gender and Number
  std::string_view before_vowel;                          // masculine singular before a vowel, where it is another form
};

enum Tense { present, past, future };

struct Verb {
  std::string_view base, third, past;               // "see", "sees", "saw"
  std::array<std::string_view, 2> present, future;  // by Number: "voit", "voient", "verra", "verront"
  std::string_view participle;                      // of the passé composé, with avoir: "vu"
};

// A word that has one form in either language; French of two words has a blank between them.
struct Fixed {
  std::string_view english, french;
};

enum class Determiner { the, a, some, nearby, my, his, her, our, two, three };
constexpr std::int64_t kDeterminers = 10;

std::span<const Noun> beings() noexcept;                          // nouns that can be subjects
std::span<const Noun> things() noexcept;                          // and nouns that cannot
std::span<const Adjective> adjectives_before() noexcept;          // in French before the noun, as English has them
std::span<const Adjective> adjectives_after() noexcept;           // after the noun
std::span<const Verb> intransitive() noexcept;                    // without an object
std::span<const Verb> transitive() noexcept;                      // with one
std::span<const Fixed> adverbs() noexcept;                        // at the end of a clause
std::span<const Fixed> places() noexcept;                         // prepositions: "under", "sous"
std::span<const Fixed> conjunctions() noexcept;                   // of clauses that are translated
std::span<const std::string_view> other_conjunctions() noexcept;  // of clauses that are only left out in summaries
std::span<const std::string_view> remarks() noexcept;             // parentheses: "of course"
std::span<const Fixed> pronouns() noexcept;                       // he, she, they

// Nouns by number: beings, persons before animals, then things.
constexpr std::int64_t kPersons = 8, kBeings = 15, kThings = 12, kNouns = kBeings + kThings;
// Adjectives by number: those before, then those after, colours first.
constexpr std::int64_t kBefore = 6, kColours = 5, kAfter = 11, kAdjectives = kBefore + kAfter;
// Verbs by number: intransitive, then transitive.
constexpr std::int64_t kIntransitive = 8, kTransitive = 8, kVerbs = kIntransitive + kTransitive;
const Noun& noun(std::int64_t i) noexcept;
const Adjective& adjective(std::int64_t i) noexcept;
const Verb& verb(std::int64_t i) noexcept;

// Whether the adjective is said of the noun (-1: of a pronoun): colours of animals and things, youth and moods of
// beings.
bool fits(std::int64_t adjective, std::int64_t noun) noexcept;

// Whether le, la, de, ne, que .. lose their vowel before this word.
bool begins_with_vowel(std::string_view french) noexcept;

}  // namespace multihead::bilingual

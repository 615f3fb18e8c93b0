// SPDX-License-Identifier: Apache-2.0
// Clauses about homonyms: what a bank is, only the words around it tell. With other clauses beside, and words spoilt.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "train/tasks/bilingual.hpp"

namespace multihead::homonyms {

// Where a clause has a word that may tell the sense: "the SUBJECT VERB the ADJECTIVE bank near the PLACE".
enum Slot { subject, verb, adjective, place };
constexpr std::int64_t kSlots = 4;
constexpr std::string_view kSlotNames[kSlots] = {"subject", "verb", "adjective", "place"};

struct Sense {
  std::string_view french;
  std::array<std::string_view, kSlots> clues;
};
struct Homonym {
  std::string_view english;
  std::array<Sense, 2> senses;
};
constexpr std::int64_t kHomonyms = 12, kSenses = 2 * kHomonyms;
const Homonym& homonym(std::int64_t i) noexcept;
const Vocabulary& words();
// Sense 2 * homonym + 0 or 1.
std::string_view french(std::int64_t sense) noexcept;

// A word's first sense; -1 where it is no homonym.
std::int64_t first_sense(std::int64_t word) noexcept;

struct Passage {
  std::vector<std::int64_t> words;   // clauses with a joining word between them
  std::vector<std::int64_t> wanted;  // (words): the sense of a homonym, -1 of another word
  std::vector<std::int64_t> clause;  // (words): whose part it is; a joining word belongs to none, -1
};

struct PassageSpec {
  std::int64_t others = 0;  // clauses beside the first; half of them have its homonym again, in either sense
  double spoilt = 0;        // the probability that a word, no homonym, is replaced by any word that is none
  std::int64_t only = -1;   // the one Slot that tells the first clause's sense; -1: each does by half, one at least
};
// Passage `index` of an endless list, a function of its arguments. One clause in eight is never trained on: out of
// those every clause of a held-out passage is made, and none of training, nor does one become such by words that are
// spoilt.
Passage passage(std::uint64_t seed, std::uint64_t index, Part part, const PassageSpec& spec);
// With as many other clauses and as much spoilt as is drawn: 0 to 3, 0 to 0.4.
Passage mixed_passage(std::uint64_t seed, std::uint64_t index, Part part);

// How often a vote is right: the words that tell either sense of the asked homonym, those of its clause or of the whole
// passage, a tie for half. Asked are all homonyms; right and asked are added to.
void vote(const Passage& passage, bool whole, double& right, std::int64_t& asked);

}  // namespace multihead::homonyms

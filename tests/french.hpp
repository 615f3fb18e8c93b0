// SPDX-License-Identifier: Apache-2.0
// A reader of simple French that knows agreement, elision and contraction, with words and rules of its own.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace multihead::testing {

// What a sentence holds, by English dictionary forms, singular: {"green", "garden"}, {"cat", "sleep"}.
struct French {
  std::string wrong;  // the first rule that is broken, and where; empty: none
  std::vector<std::pair<std::string, std::string>> adjective_of_noun, noun_of_verb;
};
// Tokens of the task, "l'" and "n'" by themselves.
French read_french(const std::vector<std::string>& tokens);

// The English dictionary form of a French word; empty of others than nouns, adjectives and verbs.
std::string english_of_french(const std::string& french);
// The dictionary form of an English form, "mice" and "saw"; empty of others.
std::string base_of_english(const std::string& english);

}  // namespace multihead::testing

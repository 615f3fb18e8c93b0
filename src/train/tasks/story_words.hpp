// SPDX-License-Identifier: Apache-2.0
// The words of the stories, in lists of which no word begins with another.
#pragma once

#include <cstdint>
#include <string_view>

namespace multihead::stories {

using Text = std::string_view;

constexpr Text kNames[] = {"Anna", "Clara", "Emma",  "Julia", "Maria", "Nora",  "Rosa", "Vera",
                           "Adam", "David", "Felix", "Henry", "Jacob", "Oscar", "Paul", "Simon"};
constexpr std::int64_t kWomen = 8;  // the first of them

constexpr Text kTrades[] = {"farmer", "baker",    "teacher", "doctor", "sailor", "painter",
                            "miller", "gardener", "singer",  "writer", "tailor", "weaver"};
constexpr Text kAges[] = {"old", "honest", "young", "quiet", "brave", "clever"};
constexpr std::int64_t kAgesAfterAn = 2;  // the first of them

constexpr Text kColours[] = {"red", "blue", "green", "white", "black", "yellow", "brown", "grey"};
constexpr Text kOne[] = {"boat",   "kite", "lamp",   "clock",   "chair", "basket",
                         "violin", "hat",  "bottle", "bicycle", "knife", "mirror"};
constexpr Text kMany[] = {"boats",   "kites", "lamps",   "clocks",   "chairs", "baskets",
                          "violins", "hats",  "bottles", "bicycles", "knives", "mirrors"};
constexpr Text kNumbers[] = {"a", "two", "three", "four", "five"};

constexpr Text kPlaces[] = {"bridge", "garden", "house",  "river", "tree",
                            "church", "mill",   "market", "tower", "stable"};
constexpr Text kWhere[] = {"near", "behind", "beside", "below"};

constexpr Text kRelative[] = {"brother", "sister", "son", "daughter", "cousin", "aunt"};
constexpr Text kRelatives[] = {"brothers", "sisters", "sons", "daughters", "cousins", "aunts"};
constexpr Text kFriends[] = {"friend", "neighbour", "partner"};

constexpr Text kDegrees[] = {"very", "quite", "not", "never"};
constexpr Text kJudgements[] = {"pretty", "heavy",  "cheap",   "famous", "useful",
                                "dirty",  "broken", "strange", "lovely", "good"};
constexpr Text kMoods[] = {"happy", "sad", "tired", "hungry", "angry", "proud"};

constexpr Text kTimes[] = {"morning", "evening", "day", "week", "night", "Sunday"};
constexpr Text kSeasons[] = {"spring", "summer", "autumn", "winter"};
constexpr Text kWhen[] = {"Today", "Later", "Soon", "Finally"};
constexpr Text kRegions[] = {"village", "town", "valley", "country"};

// By tense, present and past.
constexpr Text kHas[] = {"has", "had"}, kGives[] = {"gives", "gave"}, kCall[] = {"call", "called"};
// By tense, then number.
constexpr Text kIs[] = {"is", "are", "was", "were"};
struct Verb {
  Text forms[3];  // of one, of many, in the past
};
constexpr Verb kLikes[] = {{{"likes", "like", "liked"}},
                           {{"wants", "want", "wanted"}},
                           {{"needs", "need", "needed"}},
                           {{"admires", "admire", "admired"}},
                           {{"misses", "miss", "missed"}}};
constexpr Verb kHabits[] = {{{"sings", "sing", "sang"}},    {{"walks", "walk", "walked"}},
                            {{"sleeps", "sleep", "slept"}}, {{"works", "work", "worked"}},
                            {{"waits", "wait", "waited"}},  {{"rests", "rest", "rested"}}};

// A woman's, then a man's.
constexpr Text kShe[] = {"she", "he"}, kSheFirst[] = {"She", "He"}, kHer[] = {"her", "him"};
constexpr Text kHers[] = {"her", "his"}, kHersFirst[] = {"Her", "His"};
constexpr Text kIt[] = {"it", "them"};

}  // namespace multihead::stories

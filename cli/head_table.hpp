// SPDX-License-Identifier: Apache-2.0
// The heads of a run in numbers and strongest links, and the table of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "head_run.hpp"

namespace multihead::cli {

// From the token that looks to the one it looks at.
struct Link {
  std::int64_t query, key;
  float weight;
};

struct Head {
  std::int64_t layer, head;
  HeadSummary summary;
  std::vector<HeadLabel> labels;
  double strength;  // mean over ordinary rows: the largest weight on an ordinary token that is no neighbour
  std::vector<Link> links;

  // Means that every run gathers.
  double previous() const { return summary.offset_mass[0]; }
  double self() const { return summary.offset_mass[1]; }
  double next() const { return summary.offset_mass[2]; }
  double first() const { return summary.key_mass[0]; }
  double special() const { return summary.class_mass[0]; }  // the weight on [CLS], [SEP] and their kin
};

// How many of a row's strongest keys its statistics must hold for so many links of a head, and for strength. They hold
// 64 at most: links are then those of each row's 64 strongest keys.
std::int64_t top_for_links(const HeadTokens& tokens, std::int64_t links);

// Layer by layer, head by head.
std::vector<Head> heads_of(const HeadTokens& tokens, const std::vector<HeadStats>& layers,
                           const HeadsArguments& arguments);

// "sink 0.47 +1": the first label with its number, and how many more there are.
std::string label_text(const std::vector<HeadLabel>& labels);

// Those heads, in the order asked for, in at most so many columns: labels and links, or with stats the numbers.
void print_heads(const HeadTokens& tokens, std::vector<Head> heads, const HeadsArguments& arguments,
                 std::size_t columns);

}  // namespace multihead::cli

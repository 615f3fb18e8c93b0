// SPDX-License-Identifier: Apache-2.0
// Random attention problems over every option, and the plan that makes each pair of options meet often enough.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "problem.hpp"

namespace multihead::testing {

// A mask, bias or table as it lies in memory, read as (batch, heads, q_len, kv_len); an axis of extent 1 repeats.
struct Spread {
  Type type = Type::float32;  // of a bias
  bool bytes = false;         // a mask of uint8 and not of bool
  int rank = 0;               // 0: not given
  std::array<std::int64_t, 4> extents{1, 1, 1, 1}, strides{};
  std::int64_t first = 0;         // the place of element (0, 0, 0, 0)
  std::vector<double> values;     // by place; of a mask 0 or 1
  std::vector<std::byte> stored;  // by place, as the library reads it

  std::size_t place(std::array<std::int64_t, 4> at) const;
  double operator()(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    return values[place({b, h, i, j})];
  }
  void store_mask(Random& random);  // values to stored; true is any byte but 0
  void store(Type as);              // values to stored, and back, since storing rounds
  Mask mask() const;
  Bias bias() const;
};

// What a problem is made of: one level of each factor. A level with a name is a tag; others are "without".
enum Factor {
  kAlignmentOf,
  kCausal,
  kWindow,
  kPacking,
  kLengths,
  kKeep,
  kDrop,
  kBias,
  kBiasValues,
  kRank,
  kStrides,
  kAxes,
  kAlibi,
  kRelative,
  kSoftcap,
  kSinks,
  kScale,
  kDropout,
  kHeads,
  kQueries,
  kKeys,
  kBatch,
  kLayout,
  kPadding,
  kInputs,
  kThreads,
  kWidths,
  kFactors
};
using Choice = std::array<int, kFactors>;
using Tags = std::set<std::string>;
const std::vector<std::string>& levels_of(int factor);
// Every choice, with contradictions resolved: what remains can be built.
Choice draw_choice(Random& random, Type type);
Choice settled(Choice choice, Type type);
Tags tags_of(const Choice& choice);
// All tags of a type, and whether two may meet in one problem.
Tags all_tags(Type type);
bool may_meet(const std::string& a, const std::string& b);

// One problem: extents, options and what they point to. options() points into the problem, which must stay.
struct Problem {
  AttentionShape shape;
  AttentionOptions plain;  // options that own nothing
  std::vector<std::int64_t> lengths, prefixes, offsets, cu_seqlens_q, cu_seqlens_k, q_segments, kv_segments;
  std::vector<double> alibi_slopes, sinks;
  Spread keep_mask, drop_mask, bias, table;  // table: (1, 1, buckets, heads)
  bool bidirectional = true;
  std::int64_t max_distance = 128;
  bool heads_inside = false;
  std::int64_t padding = 0;
  double input_scale = 1;
  std::uint64_t seed = 0;
  Tags tags;

  AttentionOptions options() const;
  std::string describe() const;
};

Problem draw_problem(const Choice& choice, std::uint64_t seed, Type type);
// A problem of a type at random.
Problem draw_problem(std::uint64_t seed, Type type);
// Its options: packing, ids, lengths, masks, biases, terms by head.
void draw_sequences(Random& random, const Choice& choice, Problem& p);
void draw_spreads(Random& random, const Choice& choice, Problem& p);

// Draws problem after problem so that each pair of tags that may meet is met `often` times, in few problems: of some
// random choices, the one whose pairs are wanted most.
class Plan {
 public:
  Plan(Type type, int often);
  bool done() const { return wanted_ == 0; }
  Problem next();
  // Pairs met too rarely, for a message; empty when done.
  std::string missing() const;

 private:
  template <class Function>
  void each_pair(const Tags& tags, const Function& function);
  Type type_;
  int often_, wanted_ = 0;
  std::uint64_t seed_ = 0;
  std::map<std::pair<std::string, std::string>, int> met_;
};

}  // namespace multihead::testing

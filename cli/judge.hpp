// SPDX-License-Identifier: Apache-2.0
// How far the targets' answers to a random problem are from the reference's.
#pragma once

#include <span>
#include <vector>

#include "multihead/attention.hpp"
#include "problem.hpp"

namespace multihead::cli {

struct Distance {
  double absolute = 0;  // the largest |answer - reference| over out and lse
  double units = 0;     // the largest in units of its element; infinite where a NaN shows or a -inf is missing
};

// The unit of an element of out is eps max|v| (1 + a), that of an lse eps (1 + a + |lse|), with eps the spacing of the
// type at 1 and a = |scale| |q_i| max_j |k_j|. Why: a score is a sum of head_dim products whose sizes add up to at most
// a (Cauchy and Schwarz), so eps a is the measure of its rounding error; an error d in the scores changes the weights
// of a row by factors within exp(+-2 d), so the output by about 2 d max|v|; exp, the sums over keys and the division
// add eps max|v| a few times, which is the 1. A chain of n roundings is off by n eps / 2 at worst; as they go both ways
// it stays near sqrt(n) eps / 2 (Higham and Mary 2019), and random q and k pay that back: their partial sums are
// smaller than a by sqrt(head_dim). So one constant does for all lengths and widths.
//
// kBound is twice the worst of 100,000 problems over all targets and types (1.9); a wrong key, head, mask or scale
// gives thousands.
inline constexpr double kBound = 4;

// The distances of the targets, in their order, for the problem with normal numbers of type T. Each tensor has strides
// of its own and holds NaN where no row may look: in gaps and in keys and values past a sequence's length.
template <class T>
std::vector<Distance> judge(const Problem& problem, std::span<const Target> targets, int threads);

}  // namespace multihead::cli

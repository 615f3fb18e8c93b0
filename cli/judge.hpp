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

// The unit of an element of out is eps max|v| (1 + a), that of an lse eps (1 + a + |lse|), with eps the spacing at 1 of
// the type that sums are made in, and a the magnitude that the scores of the row are rounded at:
//   a = max(|scale| |q_i| max_j |k_j| + max_r |relative_r| + max_j (|bias_ij| + |slope| |p_i - j|), |sink|)
// over the keys j of the row's sequence that no bias hides. Why: a score is a sum of head_dim products whose sizes add
// up to at most |scale| |q| |k| (Cauchy and Schwarz), to which terms are added one by one. Each step rounds a number
// that is no larger than the sum of the sizes so far, and each term is itself rounded once, to the type and in the
// unit of the kernel's powers of two; so eps a is the measure of a score's rounding error. softcap adds nothing:
// c tanh(s / c) is no larger than s, its slope is at most 1, and dividing, tanh and multiplying are off by some eps of
// their results. A sink is one more score, whose sizes are its own. An error d in the scores changes the weights of a
// row by factors within exp(+-2 d), so the output by about 2 d max|v|; exp, the sums over keys and the division add
// eps max|v| a few times, which is the 1. A chain of n roundings is off by n eps / 2 at worst; as they go both ways it
// stays near sqrt(n) eps / 2 (Higham and Mary 2019), and random q and k pay that back: their partial sums are smaller
// than |q| |k| by sqrt(head_dim). So one constant does for all lengths and widths.
//
// bfloat16 and float16 are summed in float and rounded once at the end, which is off by half an ulp of the stored value
// at most: an element's distance is what its error exceeds that by, in the unit of float.
//
// kBound is two and a half times the worst of 40,000 problems over all targets and types (1.53); a wrong key, head,
// mask or scale gives thousands.
inline constexpr double kBound = 4;

// The distances of the targets, in their order, for the problem with normal numbers of type T. Each tensor has strides
// of its own and holds NaN where no row may look: in gaps and in keys and values past a sequence's length.
template <class T>
std::vector<Distance> judge(const Problem& problem, std::span<const Target> targets, int threads);

}  // namespace multihead::cli

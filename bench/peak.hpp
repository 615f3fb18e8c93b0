// SPDX-License-Identifier: Apache-2.0
// The ceiling: what a loop of nothing but fused multiply-adds reaches on this core, now.
#pragma once

#include "multihead/target.hpp"

namespace multihead::bench {

struct Peak {
  double flops;           // float32 per second; half of it for float64
  double fmas_per_cycle;  // instructions, so that a weak loop shows: 1 or 2 on today's cores
};

// Best of several short runs of 12 independent chains in the target's widest registers; for baseline, multiplications
// and additions. Takes about 10 ms.
Peak measure_peak(Target target);

}  // namespace multihead::bench

// SPDX-License-Identifier: Apache-2.0
// multihead explain: which kernel an attention call would take, and why.
#include <iostream>
#include <string>

#include "arguments.hpp"
#include "print.hpp"

namespace multihead::cli {

int explain(const ExplainArguments& arguments, const Common& common) {
  AttentionOptions options;
  options.causal = arguments.causal;
  options.threads = common.threads;
  options.target = common.target;
  const AttentionPlan plan = multihead::explain(arguments.shape, options);
  print_table(std::cout,
              {
                  {"kernel", plan.kernel},
                  {"why", plan.why},
                  {"task", std::to_string(plan.row_block) + " query rows of one head"},
                  {"key block", std::to_string(plan.key_block) + " keys"},
                  {"score tile", plan.score_tile},
                  {"tasks", std::to_string(plan.tasks)},
                  {"visible pairs", fixed(plan.visible_pairs, 0)},
                  {"flops", fixed(plan.flops, 0)},
                  {"scratch", std::to_string(plan.scratch_bytes) + " bytes, for " + std::to_string(options.threads) +
                                  (options.threads == 1 ? " thread" : " threads")},
              });
  return 0;
}

}  // namespace multihead::cli

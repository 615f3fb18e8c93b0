// SPDX-License-Identifier: Apache-2.0
// What the heads of a learned model look at in one input: pictures in the terminal, and pages.
#pragma once

#include <cstddef>
#include <ostream>
#include <string>
#include <vector>

#include "multihead/inspect.hpp"
#include "multihead/tasks.hpp"

namespace multihead::cli {

// Layers of one stack ("encoder", "cross"), whose tokens are alike, with their statistics.
struct LearnedStack {
  std::string name;
  std::vector<const LearnedExample::Layer*> layers;
  std::vector<HeadStats> stats;  // one a layer
};
// In the order of the example, which must outlive them.
std::vector<LearnedStack> stacks_of(const LearnedExample& example);

// Input and output, then each head: its labels and a picture of its weights.
void print_learned(std::ostream& out, const LearnedExample& example, std::size_t columns, ColorDepth depth);

// path, which is the page of the first stack, and where there are more path with "-NAME" before its ending. Returns
// what was written; "-" is standard output, where all follow each other only when there is one stack (bad_option).
std::vector<std::string> write_learned_pages(const std::string& option, const std::string& path,
                                             const std::string& title, const LearnedExample& example);

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// multihead check: random problems on the targets of this machine against the float64 reference.
#include <array>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "judge.hpp"
#include "print.hpp"
#include "problem.hpp"

namespace multihead::cli {

namespace {

// The worst a target did in one type.
struct Worst {
  Distance distance;
  int problem = 0;  // the index of the worst in units
};

void widen(Worst& worst, const Distance& distance, int problem) {
  if (distance.units > worst.distance.units) {
    worst.distance.units = distance.units;
    worst.problem = problem;
  }
  worst.distance.absolute = std::max(worst.distance.absolute, distance.absolute);
}

// --target or MULTIHEAD_TARGET alone, else all.
std::vector<Target> targets_of(const Common& common) {
  const char* name = std::getenv("MULTIHEAD_TARGET");
  if (common.target || (name && *name)) return {chosen_target(common.target)};
  return available_targets();
}

}  // namespace

int check(const CheckArguments& arguments, const Common& common) {
  const std::vector<Target> targets = targets_of(common);
  std::vector<Worst> float32(targets.size()), float64(targets.size());
  for (int i = 0; i < arguments.problems; ++i) {
    const Problem problem = random_problem(arguments.seed, i);
    const auto distances32 = judge<float>(problem, targets, common.threads);
    const auto distances64 = judge<double>(problem, targets, common.threads);
    for (std::size_t t = 0; t < targets.size(); ++t) {
      widen(float32[t], distances32[t], i);
      widen(float64[t], distances64[t], i);
    }
  }

  bool passed = true;
  std::vector<std::vector<std::string>> rows{
      {"target", "type", "problems", "worst error", "in units", "bound", "result"}};
  std::vector<std::string> failures;
  for (std::size_t t = 0; t < targets.size(); ++t)
    for (const auto& [type, worst] : {std::pair{"float32", float32[t]}, std::pair{"float64", float64[t]}}) {
      const bool good = worst.distance.units <= kBound;
      const std::string name(target_name(targets[t]));
      rows.push_back({name, type, std::to_string(arguments.problems), brief(worst.distance.absolute),
                      fixed(worst.distance.units, 3), fixed(kBound, 0), good ? "passed" : "failed"});
      if (good) continue;
      passed = false;
      failures.push_back(name + " " + type + ": worst in problem " + std::to_string(worst.problem) + " of seed " +
                         std::to_string(arguments.seed) + ": " + random_problem(arguments.seed, worst.problem).text());
    }
  print_table(std::cout, rows);
  std::cout << "\nOne unit is eps max|v| (1 + |scale| |q| max|k|) for an output, eps (1 + |scale| |q| max|k| + |lse|) "
               "for an lse.\n";
  for (const std::string& failure : failures) std::cout << failure << '\n';
  return passed ? 0 : 1;
}

}  // namespace multihead::cli

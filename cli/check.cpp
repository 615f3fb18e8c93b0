// SPDX-License-Identifier: Apache-2.0
// multihead check: random problems on the targets of this machine against the float64 reference.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "judge.hpp"
#include "print.hpp"
#include "problem.hpp"

namespace multihead::cli {

namespace {

using Judged = std::vector<Distance> (*)(const Problem&, std::span<const Target>, int);
constexpr std::array kTypes{
    std::pair<Type, Judged>{Type::float32, &judge<float>}, std::pair<Type, Judged>{Type::float64, &judge<double>},
    std::pair<Type, Judged>{Type::bfloat16, &judge<BFloat16>}, std::pair<Type, Judged>{Type::float16, &judge<Float16>}};

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
  std::vector<std::array<Worst, kTypes.size()>> worsts(targets.size());
  for (int i = 0; i < arguments.problems; ++i)
    for (std::size_t type = 0; type < kTypes.size(); ++type) {
      const auto& [name, judged] = kTypes[type];
      const auto distances = judged(random_problem(arguments.seed, i, name), targets, common.threads);
      for (std::size_t t = 0; t < targets.size(); ++t) widen(worsts[t][type], distances[t], i);
    }

  std::vector<std::vector<std::string>> rows{
      {"target", "type", "problems", "worst error", "in units", "bound", "result"}};
  std::vector<std::string> failures;
  for (std::size_t t = 0; t < targets.size(); ++t)
    for (std::size_t type = 0; type < kTypes.size(); ++type) {
      const Worst& worst = worsts[t][type];
      const bool good = worst.distance.units <= kBound;
      const std::string target(target_name(targets[t])), name(type_name(kTypes[type].first));
      rows.push_back({target, name, std::to_string(arguments.problems), brief(worst.distance.absolute),
                      fixed(worst.distance.units, 3), fixed(kBound, 0), good ? "passed" : "failed"});
      if (!good)
        failures.push_back(target + ": worst in problem " + std::to_string(worst.problem) + " of seed " +
                           std::to_string(arguments.seed) + ": " +
                           random_problem(arguments.seed, worst.problem, kTypes[type].first).text());
    }
  print_table(std::cout, rows);
  std::cout
      << "\nOne unit is eps max|v| (1 + a) for an output, beyond half an ulp where it is stored in 16 bits, and\n"
         "eps (1 + a + |lse|) for an lse, with a = |scale| |q| max|k| + max|what is added to a score|, or the sink\n"
         "where that is larger.\n";
  for (const std::string& failure : failures) std::cout << failure << '\n';
  return failures.empty() ? 0 : 1;
}

}  // namespace multihead::cli

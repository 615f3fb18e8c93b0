// SPDX-License-Identifier: Apache-2.0
// multihead info: what was found on this machine and what would run.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "arguments.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

#if defined(__x86_64__)
constexpr std::string_view kArchitecture = "x86-64";
#elif defined(__aarch64__)
constexpr std::string_view kArchitecture = "arm64";
#else
constexpr std::string_view kArchitecture = "other";
#endif

struct TargetNeeds {
  Target target;
  std::string_view architecture;  // empty: any
  const char* needs;
};
constexpr std::array kTargetNeeds{
    TargetNeeds{Target::avx512bf16, "x86-64", "AVX-512 F, BW, DQ, VL and BF16"},
    TargetNeeds{Target::avx512, "x86-64", "AVX-512 F, BW, DQ and VL"},
    TargetNeeds{Target::amx, "x86-64", "AVX-512 F, BW, DQ, VL and BF16, AMX-TILE and AMX-BF16"},
    TargetNeeds{Target::avx2, "x86-64", "AVX2 and FMA"},
    TargetNeeds{Target::neon, "arm64", "NEON, which every arm64 processor has"},
    TargetNeeds{Target::baseline, "", "nothing more than the architecture"},
};

std::string availability(const TargetNeeds& entry, const std::vector<Target>& available) {
  const std::string needs = entry.needs;
  if (std::find(available.begin(), available.end(), entry.target) != available.end())
    return "available: needs " + needs;
  if (!entry.architecture.empty() && entry.architecture != kArchitecture)
    return "not available: for " + std::string(entry.architecture) + ", this is " + std::string(kArchitecture);
  return "not available: the processor or the operating system lacks " + needs;
}

std::string chosen_by(const Common& common) {
  if (common.target) return "by --target";
  const char* name = std::getenv("MULTIHEAD_TARGET");
  return name && *name ? "by MULTIHEAD_TARGET" : "the best available";
}

}  // namespace

int info(const Common& common) {
  const std::vector<Target> available = available_targets();
  std::vector<std::vector<std::string>> rows{
      {"version", version()},
      {"compiler", compiler()},
      {"processor", processor_name()},
      {"architecture", std::string(kArchitecture)},
      {"threads", std::to_string(common.threads) + " of " + std::to_string(hardware_threads())},
  };
  for (const TargetNeeds& entry : kTargetNeeds)
    rows.push_back({"target " + std::string(target_name(entry.target)), availability(entry, available)});
  print_table(std::cout, rows);
  // After the table: it helps where the choice is an error.
  const Target chosen = chosen_target(common.target);
  std::cout << "chosen             " << target_name(chosen) << ", " << chosen_by(common) << '\n';
  return 0;
}

}  // namespace multihead::cli

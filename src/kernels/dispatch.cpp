// SPDX-License-Identifier: Apache-2.0
// Which target runs: one list, best first, a name from outside, and no silent fallback.
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "kernels/table.hpp"
#include "multihead/error.hpp"

namespace multihead {

namespace {

// Best first; the last one always runs. Each architecture compiles its own line.
#if defined(__x86_64__)
constexpr std::array<const KernelTable*, 3> kTargets{&avx512_table, &avx2_table, &baseline_table};
#elif defined(__aarch64__)
constexpr std::array<const KernelTable*, 2> kTargets{&neon_table, &baseline_table};
#else
constexpr std::array<const KernelTable*, 1> kTargets{&baseline_table};
#endif

constexpr std::array kAllTargets{Target::baseline, Target::avx2, Target::avx512, Target::neon};

const std::array<bool, kTargets.size()>& runnable() {
  static const auto found = [] {
    std::array<bool, kTargets.size()> available{};
    for (std::size_t i = 0; i < kTargets.size(); ++i) available[i] = kTargets[i]->available();
    return available;
  }();
  return found;
}

const KernelTable& best_kernels() {
  for (std::size_t i = 0; i < kTargets.size(); ++i)
    if (runnable()[i]) return *kTargets[i];
  return baseline_table;
}

std::string list_of_names(const auto& targets) {
  std::string names;
  for (Target target : targets) names += (names.empty() ? "" : ", ") + std::string(target_name(target));
  return names;
}

const KernelTable& pinned_kernels(Target target) {
  const KernelTable* table = find_kernels(target);
  if (!table)
    throw Error(ErrorCode::unsupported, "target: " + std::string(target_name(target)) +
                                            " cannot run on this machine; it has " +
                                            list_of_names(available_targets()));
  return *table;
}

}  // namespace

std::string_view target_name(Target target) noexcept {
  switch (target) {
    case Target::baseline:
      return "baseline";
    case Target::avx2:
      return "avx2";
    case Target::avx512:
      return "avx512";
    case Target::neon:
      return "neon";
  }
  return "unknown";
}

Target target_from_name(std::string_view name) {
  for (Target target : kAllTargets)
    if (target_name(target) == name) return target;
  throw Error(ErrorCode::bad_option, "target: '" + std::string(name) + "' is not one of " + list_of_names(kAllTargets));
}

std::vector<Target> available_targets() {
  std::vector<Target> found;
  for (std::size_t i = 0; i < kTargets.size(); ++i)
    if (runnable()[i]) found.push_back(kTargets[i]->target);
  return found;
}

const KernelTable* find_kernels(Target target) noexcept {
  for (std::size_t i = 0; i < kTargets.size(); ++i)
    if (kTargets[i]->target == target && runnable()[i]) return kTargets[i];
  return nullptr;
}

const KernelTable& choose_kernels(std::optional<Target> pinned) {
  if (pinned) return pinned_kernels(*pinned);
  static const KernelTable& chosen = [&]() -> const KernelTable& {
    const char* name = std::getenv("MULTIHEAD_TARGET");
    if (!name || !*name) return best_kernels();
    try {
      return pinned_kernels(target_from_name(name));
    } catch (const Error& error) {
      throw Error(error.code(), "MULTIHEAD_TARGET: " + std::string(error.what()));
    }
  }();
  return chosen;
}

Target chosen_target(std::optional<Target> pinned) { return choose_kernels(pinned).target; }

namespace {
std::array<std::atomic<std::uint64_t>, kAllTargets.size()> task_counts;
}  // namespace

void count_task(Target target) noexcept {
  task_counts[static_cast<std::size_t>(target)].fetch_add(1, std::memory_order_relaxed);
}

std::uint64_t tasks_run(Target target) noexcept {
  return task_counts[static_cast<std::size_t>(target)].load(std::memory_order_relaxed);
}

std::string processor_name() {
#if defined(__linux__)
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);)
    if (line.starts_with("model name"))
      if (const auto colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
#endif
#if defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "arm64";
#else
  return "unknown";
#endif
}

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// Which target runs: one list, best first, a name from outside, and no silent fallback.
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

#include "kernels/table.hpp"
#include "multihead/error.hpp"

namespace multihead {

namespace {

// Best first; baseline always runs. Each architecture compiles its own line. An emulated target comes last: it runs
// only where it is asked for.
#if defined(MULTIHEAD_EMULATED_TARGETS)
constexpr std::array<const KernelTable*, 5> kList{&avx2_table, &baseline_table, &avx512_table, &avx512bf16_table,
                                                  &amx_table};
#elif defined(__x86_64__)
// amx stands behind avx512, which runs wherever it does: it runs where it is asked for until it has been measured.
constexpr std::array<const KernelTable*, 5> kList{&avx512bf16_table, &avx512_table, &amx_table, &avx2_table,
                                                  &baseline_table};
#elif defined(__aarch64__)
constexpr std::array<const KernelTable*, 2> kList{&neon_table, &baseline_table};
#else
constexpr std::array<const KernelTable*, 1> kList{&baseline_table};
#endif

constexpr std::array kAllTargets{Target::baseline,   Target::avx2, Target::avx512,
                                 Target::avx512bf16, Target::amx,  Target::neon};

// The list without what cannot run here. VDPBF16PS does twice the work of a multiply-add on AMD's processors and half
// of it on Intel's, where avx512 goes first.
struct Runnable {
  std::array<const KernelTable*, kList.size()> tables{};
  std::size_t count = 0;

  const KernelTable* const* begin() const { return tables.data(); }
  const KernelTable* const* end() const { return tables.data() + count; }
};

const Runnable& runnable() {
  static const Runnable found = [] {
    Runnable here;
    for (const KernelTable* table : kList)
      if (table->available()) here.tables[here.count++] = table;
#if defined(__x86_64__)
    if (here.tables[0] == &avx512bf16_table && !__builtin_cpu_is("amd")) std::swap(here.tables[0], here.tables[1]);
#endif
    return here;
  }();
  return found;
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
    case Target::avx512bf16:
      return "avx512bf16";
    case Target::amx:
      return "amx";
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
  for (const KernelTable* table : runnable()) found.push_back(table->target);
  return found;
}

const KernelTable* find_kernels(Target target) noexcept {
  for (const KernelTable* table : runnable())
    if (table->target == target) return table;
  return nullptr;
}

const KernelTable& choose_kernels(std::optional<Target> pinned) {
  if (pinned) return pinned_kernels(*pinned);
  static const KernelTable& chosen = [&]() -> const KernelTable& {
    const char* name = std::getenv("MULTIHEAD_TARGET");
    if (!name || !*name) return **runnable().begin();
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

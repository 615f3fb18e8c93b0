// SPDX-License-Identifier: Apache-2.0
// Targets: the instruction sets the kernels are compiled for, which of them run here, and which one will.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace multihead {

// avx2, avx512, avx512bf16 and neon give one and the same result in float32 and float64; baseline rounds differently
// (it has no fused multiply-add), and so does amx in float32. Of bfloat16 avx512bf16 and amx multiply pairs, each in
// its own rounding. Every build knows every name; available_targets() says what this build and machine can run.
enum class Target { baseline, avx2, avx512, neon, avx512bf16, amx };

// "avx2". Never throws.
std::string_view target_name(Target target) noexcept;

// The target of a name. Throws bad_option for a name that is not one.
Target target_from_name(std::string_view name);

// What this processor can run with the operating system's consent, best first, never empty.
std::vector<Target> available_targets();

// What a call uses: the pinned one; else the one MULTIHEAD_TARGET names (read once, at the first call); else the best.
// Throws bad_option for an unknown name in the variable and unsupported for a target that cannot run here.
Target chosen_target(std::optional<Target> pinned = {});

// Attention tasks that the kernels of a target have run in this process: the proof of which ones did. Thread-safe.
std::uint64_t tasks_run(Target target) noexcept;

// The processor's own name, or the architecture's where it has none.
std::string processor_name();

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// multihead explain: which kernel an attention call would take, and why.
#include <algorithm>
#include <cstddef>
#include <iostream>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

// A list with one value for each head or sequence, of which there are few enough for a list.
template <class T>
std::vector<T> one_each(const std::string& option, const char* of, std::int64_t count, T value) {
  constexpr std::int64_t kMost = 1 << 20;
  if (count > kMost)
    throw Error(ErrorCode::bad_option, "explain: " + std::string(of) + " is " + std::to_string(count) +
                                           "; it must be at most " + std::to_string(kMost) + " with " + option);
  return std::vector<T>(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)), value);
}

// What the options point to. No plan depends on values, so zeros do, and one element stands for a whole mask, bias or
// table.
struct Assumed {
  std::vector<double> by_head;
  std::vector<std::int64_t> prefixes;
  std::uint8_t mask = 1;
  float bias = 0;

  explicit Assumed(const ExplainArguments& arguments) {
    if (arguments.alibi || arguments.sinks)
      by_head = one_each(arguments.alibi ? "--alibi" : "--sinks", "heads", arguments.shape.heads, 0.0);
    const auto packed = static_cast<std::int64_t>(arguments.cu_seqlens.size());
    if (arguments.prefix)
      prefixes = one_each("--prefix", "batch", packed ? packed - 1 : arguments.shape.batch, *arguments.prefix);
  }
};

AttentionOptions options_of(const ExplainArguments& arguments, const Assumed& assumed) {
  AttentionOptions options;
  options.causal = arguments.causal;
  options.alignment = arguments.alignment;
  options.window = arguments.window;
  options.softcap = arguments.softcap;
  options.prefixes = assumed.prefixes;
  options.lengths = arguments.lengths;
  options.cu_seqlens_q = options.cu_seqlens_k = arguments.cu_seqlens;
  if (arguments.alibi) options.alibi_slopes = assumed.by_head;
  if (arguments.sinks) options.sinks = assumed.by_head;
  if (arguments.keep_mask) options.keep_mask = View<const std::uint8_t, 1>(&assumed.mask, {1});
  if (arguments.bias) options.bias = View<const float, 1>(&assumed.bias, {1});
  if (arguments.relative_bias)
    options.relative_bias = {View<const float, 2>(&assumed.bias, {32, arguments.shape.heads}, {0, 0}), true};
  return options;
}

}  // namespace

int explain(const ExplainArguments& arguments, const Common& common) {
  const Assumed assumed(arguments);
  AttentionOptions options = options_of(arguments, assumed);
  options.threads = common.threads;
  options.target = common.target;
  const AttentionPlan plan = multihead::explain(arguments.shape, options);
  const bool decodes = plan.kernel.starts_with("decode");
  print_table(std::cout,
              {
                  {"kernel", plan.kernel},
                  {"why", plan.why},
                  {"task", std::to_string(plan.row_block) +
                               (decodes ? " query rows of a kv head's heads" : " query rows of one head")},
                  {"key block", std::to_string(plan.key_block) + " keys"},
                  {"score tile", plan.score_tile},
                  {"terms", plan.terms},
                  {"tasks", std::to_string(plan.tasks)},
                  {"visible pairs", fixed(plan.visible_pairs, 0)},
                  {"flops", fixed(plan.flops, 0)},
                  {"scratch", std::to_string(plan.scratch_bytes) + " bytes, for " + std::to_string(options.threads) +
                                  (options.threads == 1 ? " thread" : " threads")},
              });
  return 0;
}

}  // namespace multihead::cli

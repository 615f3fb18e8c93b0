// SPDX-License-Identifier: Apache-2.0
// explain(): what a call would run, and why.
#include "kernels/explain.hpp"

#include "core/scratch.hpp"
#include "core/validate.hpp"
#include "kernels/schedule.hpp"

namespace multihead {

namespace {

constexpr const char *kName = "explain", *kAttention = "attention";

std::string reason(const AttentionOptions& options, Target target) {
  const std::string name(target_name(target));
  if (options.target) return name + " is pinned by the call";
  if (target != available_targets().front()) return name + " is named by MULTIHEAD_TARGET";
  return name + " is the best of this machine's targets";
}

const char* short_name(Type type) {
  switch (type) {
    case Type::float32:
      return "f32";
    case Type::float64:
      return "f64";
    case Type::bfloat16:
      return "bf16";
    case Type::float16:
      return "f16";
  }
  return "";
}

template <class T>
void add_schedule(const char* function, const AttentionShape& shape, const AttentionOptions& options,
                  AttentionPlan& plan) {
  Schedule<T> schedule(shape, options);
  Scratch scratch(schedule.table_bytes(), {}, function);
  schedule.prepare(function, scratch.take<std::byte>(schedule.table_bytes()));
  plan.tasks = schedule.pieces();
  plan.visible_pairs = schedule.sequences().pairs(schedule.rules()) * static_cast<double>(shape.heads);
}

}  // namespace

AttentionPlan plan_of(const char* function, const char* kernel, const AttentionShape& shape,
                      const AttentionOptions& options) {
  check_attention(function, shape, options);
  const KernelTable& table = choose_kernels(options.target);
  AttentionPlan plan{};
  plan.target = table.target;
  plan.kernel = std::string(kernel) + "_" + short_name(shape.type) + "_" + std::string(target_name(table.target));
  plan.why = reason(options, table.target);
  plan.row_block = kRowBlock;
  plan.key_block = kKeyBlock;
  plan.score_tile = shape.type == Type::float64 ? table.tile_f64 : table.tile_f32;
  plan.terms = terms_text(options);
  if (shape.type == Type::float64)
    add_schedule<double>(function, shape, options, plan);
  else
    add_schedule<float>(function, shape, options, plan);
  return plan;
}

namespace {

// Where the decode kernel takes all rows.
void add_decode(const AttentionShape& shape, const AttentionOptions& options, AttentionPlan& plan) {
  if (shape.type == Type::float64) return;
  Schedule<float> schedule(shape, options);
  Scratch scratch(schedule.table_bytes(), {}, kName);
  schedule.prepare(kName, scratch.take<std::byte>(schedule.table_bytes()));
  const std::int64_t rows = schedule.decode_rows();
  if (rows == 0) return;
  plan.kernel.replace(0, std::string_view(kAttention).size(), "decode");
  plan.row_block = static_cast<int>(rows);
  plan.score_tile = choose_kernels(options.target).tile_decode;
}

}  // namespace

AttentionPlan explain(const AttentionShape& shape, const AttentionOptions& options) {
  AttentionPlan plan = plan_of(kName, kAttention, shape, options);
  add_decode(shape, options, plan);
  plan.flops = 2.0 * plan.visible_pairs * static_cast<double>(shape.head_dim + shape.value_dim);
  plan.scratch_bytes = attention_scratch_bytes(shape, options);
  return plan;
}

}  // namespace multihead

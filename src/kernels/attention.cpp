// SPDX-License-Identifier: Apache-2.0
// attention(): check, turn masks into key ranges, cut into tasks, hand them to threads.
#include "multihead/attention.hpp"

#include <cmath>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "core/validate.hpp"
#include "kernels/attention.hpp"
#include "kernels/operands.hpp"
#include "kernels/ranges.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "attention";

std::int64_t row_blocks(const AttentionShape& shape) { return (shape.q_len + kRowBlock - 1) / kRowBlock; }

std::int64_t task_count(const AttentionShape& shape) { return shape.batch * shape.heads * row_blocks(shape); }

std::size_t element_size(Type type) { return type == Type::float32 ? sizeof(float) : sizeof(double); }

std::size_t task_scratch(const AttentionShape& shape) {
  return round_to_line(attention_scratch_elements(shape.head_dim, shape.value_dim) * element_size(shape.type));
}

std::size_t all_scratch(const AttentionShape& shape, const AttentionOptions& options) {
  return task_scratch(shape) * static_cast<std::size_t>(std::min<std::int64_t>(options.threads, task_count(shape)));
}

template <class T>
void run(View4<const T> q, View4<const T> k, View4<const T> v, View4<T> out, const View3<T>* lse,
         const AttentionOptions& options) {
  const AttentionShape shape = shape_of(q, k, v);
  check_operands(kName, q, k, v, out, lse);
  check_attention(kName, shape, options);
  const KernelTable& table = choose_kernels(options.target);
  Scratch scratch(all_scratch(shape, options), options.scratch, kName);
  const AttentionCall<T> call{q, k, v, out, lse ? *lse : View3<T>{}, {}, {}};
  run_attention(call, shape, options, table, scratch.take<std::byte>(all_scratch(shape, options)));
}

}  // namespace

template <class T>
AttentionTask<T> task_of(const AttentionCall<T>& call, const AttentionShape& shape, double scale, std::int64_t head,
                         std::int64_t row) {
  const std::int64_t b = head / shape.heads, h = head % shape.heads, kv = h / (shape.heads / shape.kv_heads);
  const bool empty = shape.kv_len == 0;
  AttentionTask<T> task{};
  task.q = &call.q(b, h, row, 0);
  task.k = empty ? nullptr : &call.k(b, kv, 0, 0);
  task.v = empty ? nullptr : &call.v(b, kv, 0, 0);
  task.out = &call.out(b, h, row, 0);
  task.q_stride = call.q.stride(2);
  task.k_stride = call.k.stride(2);
  task.v_stride = call.v.stride(2);
  task.out_stride = call.out.stride(2);
  if (call.lse.data()) task.lse = &call.lse(b, h, row), task.lse_stride = call.lse.stride(2);
  if (call.row_max) task.row_max = call.row_max + head * shape.q_len + row;
  if (call.row_sum) task.row_sum = call.row_sum + head * shape.q_len + row;
  task.rows = static_cast<int>(std::min<std::int64_t>(kRowBlock, shape.q_len - row));
  task.head_dim = static_cast<int>(shape.head_dim);
  task.value_dim = static_cast<int>(shape.value_dim);
  task.scale = scale;
  return task;
}

template <class T>
void run_attention(const AttentionCall<T>& call, const AttentionShape& shape, const AttentionOptions& options,
                   const KernelTable& table, std::byte* scratch) {
  const FloatMode mode;
  const double scale = options.scale ? *options.scale : default_scale(shape.head_dim);
  const std::int64_t blocks = row_blocks(shape);
  const std::size_t task_bytes = task_scratch(shape);
  parallel_for(task_count(shape), options.threads, options.parallel_for, [&](int worker, std::int64_t index) {
    // The last rows first: under a causal mask they are the longest, and the short ones fill the end.
    const std::int64_t head = index / blocks, row = (blocks - 1 - index % blocks) * kRowBlock;
    const Visibility visibility(shape, options, head / shape.heads);
    KeyRange visible[kRowBlock];
    AttentionTask<T> task = task_of(call, shape, scale, head, row);
    for (int i = 0; i < task.rows; ++i) visible[i] = visibility.row(row + i);
    task.visible = visible;
    task.scratch = reinterpret_cast<T*>(scratch + static_cast<std::size_t>(worker) * task_bytes);
    table.kernels<T>().attention(task);
  });
}

template AttentionTask<float> task_of(const AttentionCall<float>&, const AttentionShape&, double, std::int64_t,
                                      std::int64_t);
template AttentionTask<double> task_of(const AttentionCall<double>&, const AttentionShape&, double, std::int64_t,
                                       std::int64_t);
template void run_attention(const AttentionCall<float>&, const AttentionShape&, const AttentionOptions&,
                            const KernelTable&, std::byte*);
template void run_attention(const AttentionCall<double>&, const AttentionShape&, const AttentionOptions&,
                            const KernelTable&, std::byte*);

std::size_t attention_task_scratch(const AttentionShape& shape) { return task_scratch(shape); }

void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out,
               const AttentionOptions& options) {
  run<float>(q, k, v, out, nullptr, options);
}
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               const AttentionOptions& options) {
  run<double>(q, k, v, out, nullptr, options);
}
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out, View3<float> lse,
               const AttentionOptions& options) {
  run<float>(q, k, v, out, &lse, options);
}
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const AttentionOptions& options) {
  run<double>(q, k, v, out, &lse, options);
}

std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options) {
  check_attention("attention_scratch_bytes", shape, options);
  choose_kernels(options.target);
  return all_scratch(shape, options) + kCacheLine;
}

namespace {

// Pairs that rows see: whole sequences where nothing is causal, rows one by one in closed form otherwise. In double,
// since they may be more than an integer holds.
double visible_pairs(const AttentionShape& shape, const AttentionOptions& options) {
  double pairs = 0;
  const bool alike = options.lengths.empty();  // then one sequence stands for all
  for (std::int64_t b = 0; b < (alike ? std::min<std::int64_t>(shape.batch, 1) : shape.batch); ++b) {
    const Visibility seen(shape, options, b);
    const auto length = static_cast<double>(seen.length);
    if (!seen.causal) {
      pairs += static_cast<double>(shape.q_len) * length;
      continue;
    }
    // Rows [first, full) see i + offset + 1 keys, rows from full on see all of them.
    const std::int64_t first = std::clamp<std::int64_t>(-seen.offset, 0, shape.q_len);
    const std::int64_t full = std::clamp<std::int64_t>(seen.length - seen.offset, first, shape.q_len);
    const auto rising = static_cast<double>(full - first);
    pairs += rising * static_cast<double>(first + seen.offset + 1) + rising * (rising - 1) / 2 +
             static_cast<double>(shape.q_len - full) * length;
  }
  return pairs * static_cast<double>(shape.heads) * (alike ? static_cast<double>(shape.batch) : 1);
}

std::string reason(const AttentionOptions& options, Target target) {
  const std::string name(target_name(target));
  if (options.target) return name + " is pinned by the call";
  if (target != available_targets().front()) return name + " is named by MULTIHEAD_TARGET";
  return name + " is the best of this machine's targets";
}

}  // namespace

AttentionPlan explain(const AttentionShape& shape, const AttentionOptions& options) {
  check_attention("explain", shape, options);
  const KernelTable& table = choose_kernels(options.target);
  const bool is_float = shape.type == Type::float32;
  AttentionPlan plan{};
  plan.target = table.target;
  plan.kernel = std::string("attention_") + (is_float ? "f32_" : "f64_") + std::string(target_name(table.target));
  plan.why = reason(options, table.target);
  plan.row_block = kRowBlock;
  plan.key_block = kKeyBlock;
  plan.score_tile = is_float ? table.tile_f32 : table.tile_f64;
  plan.tasks = task_count(shape);
  plan.visible_pairs = visible_pairs(shape, options);
  plan.flops = 2.0 * plan.visible_pairs * static_cast<double>(shape.head_dim + shape.value_dim);
  plan.scratch_bytes = all_scratch(shape, options) + kCacheLine;
  return plan;
}

}  // namespace multihead

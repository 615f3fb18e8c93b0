// SPDX-License-Identifier: Apache-2.0
// Decode of one kv head: the share of a loop that does nothing but read the same memory, in turn with it, and of the
// multiply-adds' ceiling. Which of the two bounds a case is the smaller of the two times; of_goal is its share of the
// smaller of 0.9 of the one and 0.85 of the other.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cases.hpp"
#include "ceilings.hpp"
#include "kernels/decode_task.hpp"
#include "problem.hpp"
#include "timed.hpp"

namespace multihead::bench {
namespace {

using testing::Random;
using Element = CachedRows::Element;

struct Stored {
  const char* name;
  Element element;
  Type type;  // of q and out
  std::int64_t bytes;
};
constexpr Stored kStored[] = {{"f32", Element::float32, Type::float32, 4},
                              {"bf16", Element::bfloat16, Type::bfloat16, 2},
                              {"f16", Element::float16, Type::float16, 2},
                              {"int8", Element::int8, Type::float32, 1}};

// Random numbers of a type, side by side.
std::vector<float> random_elements(Random& random, const Stored& stored, std::size_t count) {
  std::vector<float> memory((count * static_cast<std::size_t>(stored.bytes) + 3) / 4);
  auto* const bytes = reinterpret_cast<std::byte*>(memory.data());
  for (std::size_t i = 0; i < count; ++i) {
    const auto x = static_cast<float>(2 * random.uniform() - 1);
    const BFloat16 brain(x);
    const Float16 half(x);
    const auto byte = static_cast<std::int8_t>(127 * x);
    const void* const from = stored.bytes == 4                     ? static_cast<const void*>(&x)
                             : stored.element == Element::bfloat16 ? static_cast<const void*>(&brain)
                             : stored.element == Element::float16  ? static_cast<const void*>(&half)
                                                                   : static_cast<const void*>(&byte);
    std::memcpy(bytes + i * static_cast<std::size_t>(stored.bytes), from, static_cast<std::size_t>(stored.bytes));
  }
  return memory;
}

// One kv head in pages of 1,024 positions, in order, and the query heads of one token.
struct Problem {
  Random random{1};
  std::int64_t length, head_dim, heads, page_len = 1024;
  std::vector<float> memory, queries, scales, out, scratch;
  std::vector<std::int32_t> pages;
  std::vector<DecodeRow> rows;
  DecodeTask task{};

  Problem(const Stored& stored, std::int64_t positions, std::int64_t width, std::int64_t group, bool blocked)
      : length(positions), head_dim(width), heads(group) {
    const auto elements = static_cast<std::size_t>(length * head_dim),
               query = static_cast<std::size_t>(heads * head_dim);
    memory = random_elements(random, stored, 2 * elements);
    const Stored queried = stored.element == Element::int8 ? kStored[0] : stored;
    queries = random_elements(random, queried, query);
    scales.assign(static_cast<std::size_t>(2 * length), 0.01f), out.resize(query);
    for (std::int64_t page = 0; page * page_len < length; ++page) pages.push_back(static_cast<std::int32_t>(page));
    const std::int64_t row = head_dim * stored.bytes;
    const auto* const keys = reinterpret_cast<const std::byte*>(memory.data());
    task.cache = {.element = stored.element,
                  .blocked = blocked,
                  .k = keys,
                  .v = keys + length * row,
                  .k_page = page_len * row,
                  .v_page = page_len * row,
                  .k_row = row,
                  .v_row = row,
                  .pages = pages.data(),
                  .page_len = page_len};
    if (stored.element == Element::int8) {
      task.cache.k_scales = scales.data(), task.cache.v_scales = scales.data() + length;
      task.cache.scale_page = page_len * 4;
    }
    for (std::int64_t h = 0; h < heads; ++h) {
      DecodeRow row_of{};
      row_of.q = reinterpret_cast<const std::byte*>(queries.data()) + h * head_dim * queried.bytes;
      row_of.out = out.data() + h * head_dim, row_of.visible = {0, length}, row_of.position = length - 1;
      rows.push_back(row_of);
    }
    scratch.resize(decode_scratch_elements(heads, head_dim, head_dim));
    task.rows = rows.data(), task.count = static_cast<int>(heads), task.type = stored.type;
    task.head_dim = task.value_dim = static_cast<int>(head_dim), task.last_block = length / kKeyBlock;
    task.scale = 0.2f, task.scratch = scratch.data();
  }
  Problem(const Problem&) = delete;
};

void decode_case(benchmark::State& state, const Stored& stored, bool blocked) {
  const Target target = chosen_target();
  const KernelTable& table = *find_kernels(target);
  const auto run = stored.element == Element::int8 ? table.decode_int8 : table.decode;
  if (!run) return state.SkipWithError("the target decodes by the kernel of attention");
  const Problem problem(stored, state.range(1), state.range(2), state.range(0), blocked);
  const auto bytes = static_cast<double>(problem.memory.size() * sizeof(float));
  const double flops = 4.0 * static_cast<double>(problem.length * problem.head_dim * problem.heads);
  const int calls = std::max(1, static_cast<int>(1e7 / bytes));
  double reading = 0, best = 1e9;
  const double multiplying = multiply_adds(Type::float32, target);
  for (auto _ : state) {
    reading = std::max(reading, reads(problem.memory, target));
    const double time = seconds([&] {
      for (int i = 0; i < calls; ++i) run(problem.task);
    });
    state.SetIterationTime(time / calls), best = std::min(best, time / calls);
  }
  state.counters["GBps"] = bytes / best * 1e-9;
  state.counters["read_share"] = bytes / best / reading;
  state.counters["fma_share"] = flops / best / multiplying;
  state.counters["of_goal"] = std::max(bytes / reading / 0.9, flops / multiplying / 0.85) / best;
}

}  // namespace

void register_decode() {
  for (const Stored& stored : kStored)
    for (bool blocked : {true, false})
      benchmark::RegisterBenchmark((std::string("decode_") + stored.name + (blocked ? "" : "/rows")).c_str(),
                                   decode_case, stored, blocked)
          ->ArgsProduct({{1, 4, 8}, {1024, 16384, 131072}, {64, 128}})
          ->ArgNames({"group", "length", "head_dim"})
          ->UseManualTime()
          ->Iterations(7);
}

}  // namespace multihead::bench

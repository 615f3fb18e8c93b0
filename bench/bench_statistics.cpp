// SPDX-License-Identifier: Apache-2.0
// What statistics cost beside the attention that gathers them: the time with them over the time without, the two run in
// turn, medians of the turns.
#include <string>
#include <vector>

#include "cases.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"
#include "timed.hpp"

namespace multihead::bench {
namespace {

using testing::Random;
using testing::Tensor;

constexpr std::int64_t kHeadDim = 64;

// What is attended to.
struct Form {
  const char* name;
  std::int64_t heads, rows, keys;
  bool causal = false, alibi = false;
  std::int64_t sequences = 1;  // packed, of equal lengths
};

// Room for every statistic of one call.
struct Room {
  const Form& form;
  std::vector<std::vector<float>> values;
  std::vector<std::int64_t> top_keys, tokens, offsets{-1, 0, 1}, keys{0};
  std::vector<std::uint32_t> classes;
  StatisticsRequest<float> request;

  explicit Room(const Form& of) : form(of) {
    Random random(7);
    for (std::int64_t i = 0; i < form.keys; ++i) tokens.push_back(random.between(0, 999));
    for (std::int64_t i = 0; i < form.keys; ++i)
      classes.push_back((random.chance(10) ? 1u : random.chance(2) ? 2u : 0u) | 4u | (random.chance(50) ? 8u : 0u));
    request.offsets = offsets, request.keys = keys;
    request.key_classes = {classes.data(), {1, form.keys}};
    request.q_tokens = {tokens.data(), {1, form.rows}}, request.kv_tokens = {tokens.data(), {1, form.keys}};
  }
  View3<float> rows() {
    values.emplace_back(static_cast<std::size_t>(form.heads * form.rows));
    return {values.back().data(), {1, form.heads, form.rows}};
  }
  View4<float> items(std::int64_t count) {
    values.emplace_back(static_cast<std::size_t>(form.heads * form.rows * count));
    return {values.back().data(), {1, form.heads, form.rows, count}};
  }
  void top(std::int64_t count) {
    top_keys.resize(static_cast<std::size_t>(form.heads * form.rows * count));
    request.plain.top_keys = {top_keys.data(), {1, form.heads, form.rows, count}};
    request.plain.top_weights = items(count);
  }
};

struct Wanted {
  const char* name;
  void (*set)(Room&);
};

// What HeadStats asks for unless told otherwise.
void standard(Room& room) {
  RowStatistics<float>& to = room.request.plain;
  to.visible = room.rows(), to.entropy = room.rows(), to.sum_squares = room.rows(), to.distance = room.rows();
  to.offset_mass = room.items(3), to.key_mass = room.items(1);
  room.top(1);
}

constexpr Wanted kWanted[] = {
    {"none", [](Room&) {}},
    {"entropy", [](Room& room) { room.request.plain.entropy = room.rows(); }},
    {"sum_squares", [](Room& room) { room.request.plain.sum_squares = room.rows(); }},
    {"distance", [](Room& room) { room.request.plain.distance = room.rows(); }},
    {"masses",
     [](Room& room) { room.request.plain.offset_mass = room.items(3), room.request.plain.key_mass = room.items(1); }},
    {"top_1", [](Room& room) { room.top(1); }},
    {"standard", standard},
    {"top_8", [](Room& room) { room.top(8); }},
    {"top_64", [](Room& room) { room.top(64); }},
    {"classes", [](Room& room) { room.request.plain.class_mass = room.items(2); }},
    {"classes_4", [](Room& room) { room.request.plain.class_mass = room.items(4); }},  // the third of every key
    {"patterns",
     [](Room& room) {
       room.request.plain.duplicate_mass = room.rows(), room.request.plain.induction_mass = room.rows();
     }},
};

// Forms of the standard request; those of the others are the long ones.
constexpr Form kLong{"long", 8, 3072, 3072}, kCausal{"causal", 8, 3072, 3072, true};
constexpr Form kForms[] = {{"short_32", 12, 32, 32},
                           {"short_128", 12, 128, 128},
                           {"short_512", 12, 512, 512},
                           {"decode", 32, 1, 4096},
                           {"packed", 12, 2048, 2048, false, false, 64},
                           {"alibi", 8, 3072, 3072, true, true}};

void statistics_case(benchmark::State& state, const Wanted& wanted, const Form& form) {
  Tensor<float> q({1, form.heads, form.rows, kHeadDim}), k({1, form.heads, form.keys, kHeadDim}), v(k.view.extents()),
      out(q.view.extents());
  Random random(1);
  for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random);
  Room room(form);
  wanted.set(room);
  AttentionOptions options;
  options.causal = form.causal;
  std::vector<double> slopes(static_cast<std::size_t>(form.heads), 0.03125);
  if (form.alibi) options.alibi_slopes = slopes;
  std::vector<std::int64_t> bounds;
  for (std::int64_t s = 0; s <= form.sequences; ++s) bounds.push_back(form.keys / form.sequences * s);
  if (form.sequences > 1) options.cu_seqlens_q = options.cu_seqlens_k = bounds;
  const std::int64_t repeats = std::max<std::int64_t>(1, 20000000 / (form.heads * form.rows * form.keys));
  const auto run = [&](const StatisticsRequest<float>& request) {
    attention(View4<const float>(q.view), View4<const float>(k.view), View4<const float>(v.view), out.view, {}, {},
              request, options);
  };
  run(room.request);
  std::vector<double> ratios, times;
  for (auto _ : state) {
    // There and back, so that what drifts over the four calls weighs on both.
    const auto repeated = [&](const StatisticsRequest<float>& request) {
      return seconds([&] {
        for (std::int64_t left = repeats; left > 0; --left) run(request);
      });
    };
    double plain = repeated({});
    const double with = repeated(room.request) + repeated(room.request);
    plain += repeated({});
    state.SetIterationTime(with / 2);  // of all repeats: a short call alone would be repeated without end
    ratios.push_back(with / plain);
  }
  state.counters["of_plain"] = median(ratios);
}

}  // namespace

void register_statistics() {
  const auto add = [](const Wanted& wanted, const Form& form) {
    benchmark::RegisterBenchmark((std::string("statistics/") + wanted.name + "/" + form.name).c_str(), statistics_case,
                                 wanted, form)
        ->UseManualTime();
  };
  for (const Form& form : {kLong, kCausal})
    for (const Wanted& wanted : kWanted) add(wanted, form);
  for (const Form& form : kForms) add({"standard", standard}, form);
}

}  // namespace multihead::bench

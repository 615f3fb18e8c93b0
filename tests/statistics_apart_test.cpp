// SPDX-License-Identifier: Apache-2.0
// Every output of statistics is of its extents, and apart from everything that the call reads and writes.
#include <gtest/gtest.h>

#include "refusals.hpp"
#include "statistics_places.hpp"

namespace multihead::testing {
namespace {

// Rooms of memory, each large enough for every operand and a legal list of integers or floats: zeros.
constexpr std::int64_t kPlace = 4096;
using Memory = std::vector<double>;

// 2 batch entries, 4 heads, 3 queries, 5 keys; each operand in a room of its own.
struct ApartCall {
  Memory memory = Memory(32 * kPlace);
  std::vector<std::pair<std::string, void*>> rooms;
  StatisticsRequest<double> statistics;
  WeightsRequest<double> weights;
  View4<double> q, k, v, out;
  View3<double> lse;
  static constexpr PlacedExtents kExtents{2, 4, 3, 5, 2, 2, 3, 2, 16};

  ApartCall() {
    q = {room("q"), {2, 4, 3, 6}}, k = {room("k"), {2, 2, 5, 6}}, v = {room("v"), {2, 2, 5, 7}};
    out = {room("out"), {2, 4, 3, 7}}, lse = {room("lse"), {2, 4, 3}};
    weights.heads = {ints("weights.heads"), 1}, weights.rows = {ints("weights.rows"), 3};
    weights.per_head = {room("weights.per_head"), {2, 1, 3, 5}}, weights.mean = {room("weights.mean"), {2, 3, 5}};
    weights.norm_weighted = {room("weights.norm_weighted"), {2, 3, 5}};
    weights.norms = {room("weights.norms"), {2, 4, 5}};
    statistics.offsets = {ints("statistics.offsets"), 2}, statistics.keys = {ints("statistics.keys"), 2};
    statistics.q_tokens = {ints("statistics.q_tokens"), {2, 3}};
    statistics.kv_tokens = {ints("statistics.kv_tokens"), {2, 5}};
    statistics.key_classes = {reinterpret_cast<const std::uint32_t*>(room("statistics.key_classes")), {2, 5}};
    statistics.norms = {room("statistics.norms"), {2, 4, 5}};
    statistics.bin = 16;
    own = room("its own");
    // Something of the norm-weighted distribution, which its norms must come with.
    statistics.norm_weighted.entropy = {room("statistics.norm_weighted.entropy"), {2, 4, 3}};
  }
  double* room(const char* name) {
    double* const place = memory.data() + static_cast<std::int64_t>(rooms.size()) * kPlace;
    rooms.emplace_back(name, place);
    return place;
  }
  std::int64_t* ints(const char* name) { return reinterpret_cast<std::int64_t*>(room(name)); }
  RowStatistics<double>& to(bool weighted) { return weighted ? statistics.norm_weighted : statistics.plain; }
  void run() const {
    attention(View4<const double>(q), View4<const double>(k), View4<const double>(v), out, lse, weights, statistics,
              {});
  }
  double* own;
};

template <class Visit>
void each_output(const Visit& visit) {
  for (bool weighted : {false, true})
    each_placed<double>(ApartCall::kExtents, weighted,
                        [&](const std::string& name, const auto& put) { visit(weighted, name, put); });
}

TEST(StatisticsApart, FromEverythingReadAndWritten) {
  int refused = 0;
  each_output([&](bool weighted, const std::string& name, const auto& put) {
    ApartCall legal;
    put(legal.to(weighted), legal.own);
    EXPECT_NO_THROW(legal.run()) << name;
    for (const auto& [room, unused] : legal.rooms) {
      if (room == "its own" || room == name) continue;
      ApartCall call;
      for (const auto& [same, there] : call.rooms)
        if (same == room) put(call.to(weighted), there);
      const Memory before = call.memory;
      expect_error("attention", kShape, {"overlaps", name, room}, [&] { call.run(); });
      EXPECT_TRUE(before == call.memory) << name << " on " << room;
      ++refused;
    }
  });
  EXPECT_GT(refused, 400);
}

TEST(StatisticsApart, FromEachOther) {
  each_output([&](bool weighted, const std::string& name, const auto& put) {
    each_output([&](bool others, const std::string& other, const auto& put_other) {
      if (other == name || other == "statistics.norm_weighted.entropy") return;
      ApartCall call;
      put(call.to(weighted), call.own), put_other(call.to(others), call.own);
      expect_error("attention", kShape, {"overlaps", name, other}, [&] { call.run(); });
    });
  });
}

TEST(StatisticsApart, WrongExtentsAndNull) {
  each_output([&](bool weighted, const std::string& name, const auto& put) {
    for (int axis = 0; axis < 3; ++axis) {
      ApartCall call;
      put(call.to(weighted), call.own, axis);
      const std::string says = name + " on axis " + std::to_string(axis) + " has extent";
      expect_error("attention", kShape, {says, "wanted is"}, [&] { call.run(); });
    }
    ApartCall call;
    put(call.to(weighted), nullptr);
    expect_error("attention", kShape, {name + " is null"}, [&] { call.run(); });
  });
}

// What attention() itself writes is apart from what the passes after it read.
TEST(StatisticsApart, OutputsFromTheListsOfWeights) {
  for (const char* room : {"weights.heads", "weights.rows", "weights.norms"})
    for (const bool to_lse : {false, true}) {
      ApartCall call;
      call.statistics = {};
      for (const auto& [name, place] : call.rooms)
        if (name == room) {
          if (to_lse) call.lse = {static_cast<double*>(place), {2, 4, 3}};
          if (!to_lse) call.out = {static_cast<double*>(place), {2, 4, 3, 7}};
        }
      expect_error("attention", kShape, {(to_lse ? "lse overlaps " : "out overlaps ") + std::string(room)},
                   [&] { call.run(); });
    }
}

// A layer of two heads of two, a sequence of 3 tokens: what a call reads as it goes lies in one room, each of its
// outputs in turn as well.
struct ApartLayer {
  Memory memory = Memory(16 * kPlace, 1.0), matrix = Memory(16, 0.25);
  MultiHeadAttention<double> layer;
  MultiHeadOptions options;
  MultiHeadRequests<double> requests;
  View3<double> x, output;
  double* shared = memory.data();

  ApartLayer()
      : layer({.heads = 2, .order = WeightOrder::in_out},
              {.q = square(), .k = square(), .v = square(), .out = square()}) {
    x = {memory.data() + kPlace, {1, 3, 4}}, output = {memory.data() + 2 * kPlace, {1, 3, 4}};
    requests.lse = {memory.data() + 3 * kPlace, {1, 2, 3}}, requests.heads = {memory.data() + 4 * kPlace, {1, 2, 3, 2}};
    requests.weights.per_head = {memory.data() + 5 * kPlace, {1, 2, 3, 3}};
    requests.weights.mean = {memory.data() + 6 * kPlace, {1, 3, 3}};
    requests.weights.norm_weighted = {memory.data() + 7 * kPlace, {1, 3, 3}};
    std::fill_n(shared, kPlace, 0.0);
  }
  MatrixView<const double> square() const { return {matrix.data(), {4, 4}}; }
  void run() const {
    const View3<const double> in = x;
    layer.forward(in, in, in, output, options, requests);
  }
  void expect_overlap(const std::string& name) {
    const auto* ints = reinterpret_cast<const std::int64_t*>(shared);
    const auto refused = [&](const std::string& list) {
      expect_error("MultiHeadAttention", kShape, {name + " overlaps " + list}, [&] { run(); });
    };
    options.gates = {shared, 2}, refused("gates");
    options.gates = {}, requests.weights.rows = {ints, 3}, refused("weights.rows");
    const std::int64_t both[2] = {0, 1};
    std::memcpy(shared, both, sizeof both);
    requests.weights.rows = {}, requests.weights.heads = {ints, 2}, refused("weights.heads");
    requests.weights.heads = {};
  }
};

TEST(StatisticsApart, OutputsOfALayer) {
  const PlacedExtents extents{1, 2, 3, 3, 2, 2, 3, 2, 16};
  const std::vector<std::int64_t> numbers{0, 1, 1};
  const std::vector<std::uint32_t> classes{1, 2, 1};
  for (bool weighted : {false, true})
    each_placed<double>(extents, weighted, [&](const std::string& name, const auto& put) {
      ApartLayer call;
      StatisticsRequest<double>& r = call.requests.statistics;
      r.offsets = r.keys = std::span(numbers).first(2), r.bin = 16;
      r.q_tokens = r.kv_tokens = {numbers.data(), {1, 3}}, r.key_classes = {classes.data(), {1, 3}};
      RowStatistics<double>& to = weighted ? r.norm_weighted : r.plain;
      put(to, call.memory.data() + 8 * kPlace);
      EXPECT_NO_THROW(call.run()) << name;
      put(to, call.shared);
      call.expect_overlap(name);
    });
  const auto at_lists = [](const std::string& name, auto place) {
    ApartLayer call;
    auto& view = place(call);
    using View = std::remove_reference_t<decltype(view)>;
    view = View(call.shared, view.extents());
    call.expect_overlap(name);
  };
  at_lists(
      "output", [](ApartLayer & c) -> auto& { return c.output; });
  at_lists(
      "lse", [](ApartLayer & c) -> auto& { return c.requests.lse; });
  at_lists(
      "heads", [](ApartLayer & c) -> auto& { return c.requests.heads; });
  at_lists(
      "weights.per_head", [](ApartLayer & c) -> auto& { return c.requests.weights.per_head; });
  at_lists(
      "weights.mean", [](ApartLayer & c) -> auto& { return c.requests.weights.mean; });
  at_lists(
      "weights.norm_weighted", [](ApartLayer & c) -> auto& { return c.requests.weights.norm_weighted; });
}

}  // namespace
}  // namespace multihead::testing

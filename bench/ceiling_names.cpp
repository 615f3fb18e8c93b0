// SPDX-License-Identifier: Apache-2.0
// The ceilings by their names.
#include <string>

#include "ceilings.hpp"

namespace multihead::bench {

namespace {

constexpr Type kTypes[] = {Type::float32, Type::float64};

std::string name_of(const char* loop, Type type) { return loop + std::string(type == Type::float64 ? "_f64" : "_f32"); }

std::string beside_name(Type type, int products) {
  return name_of("fma", type) + "_softmax_" + std::to_string(products);
}

// Operations, scores or bytes per second.
double rate_of(const Ceiling& ceiling, std::span<const float> operands) {
  const Target target = chosen_target();
  for (const Type type : kTypes) {
    if (ceiling.name == name_of("fma", type)) return multiply_adds(type, target);
    if (ceiling.name == name_of("softmax", type)) return softmax_scores(type, target);
    for (const int products : kBesideSoftmax)
      if (ceiling.name == beside_name(type, products)) return multiply_adds_beside_softmax(type, products, target);
  }
  if (ceiling.name == "bf16_dot") return bfloat16_dots();
  if (ceiling.name == "bf16_tile") return bfloat16_tiles();
  return reads(operands, target);
}

}  // namespace

std::vector<Ceiling> ceilings() {
  std::vector<Ceiling> all;
  for (const Type type : kTypes) {
    all.push_back({name_of("fma", type), "GFLOPS", 0});
    all.push_back({name_of("softmax", type), "Gscores", 0});
    for (const int products : kBesideSoftmax) all.push_back({beside_name(type, products), "GFLOPS", 0});
  }
  if (bfloat16_dots() > 0) all.push_back({"bf16_dot", "GFLOPS", 0});
  if (bfloat16_tiles() > 0) all.push_back({"bf16_tile", "GFLOPS", 0});
  for (const ReadLevel& level : read_levels()) all.push_back({"read_" + level.name, "GBps", level.bytes});
  return all;
}

double measure(const Ceiling& ceiling, std::span<const float> operands) { return rate_of(ceiling, operands) * 1e-9; }

}  // namespace multihead::bench

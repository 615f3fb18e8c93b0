// SPDX-License-Identifier: Apache-2.0
// The caches that the system tells of, and numbers to read from them.
#include <algorithm>
#include <fstream>
#include <map>
#include <string>

#include "ceilings.hpp"
#include "problem.hpp"

namespace multihead::bench {

namespace {

constexpr std::size_t kMegabyte = std::size_t{1} << 20;

// Level to bytes of the first processor's caches that hold data; what most have where the system does not tell.
std::map<int, std::size_t> caches() {
  std::map<int, std::size_t> found;
  for (int index = 0; index < 8; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    std::ifstream level_file(folder + "level"), type_file(folder + "type"), size_file(folder + "size");
    int level = 0;
    std::string type;
    std::size_t size = 0;
    char unit = ' ';
    if (!(level_file >> level) || !(type_file >> type) || !(size_file >> size) || type == "Instruction") continue;
    size_file >> unit;
    found[level] = size * (unit == 'K' ? 1024 : unit == 'M' ? kMegabyte : 1);
  }
  if (found.empty()) found = {{1, 32 * 1024}, {2, 512 * 1024}, {3, 8 * kMegabyte}};
  return found;
}

}  // namespace

std::vector<ReadLevel> read_levels() {
  std::vector<ReadLevel> levels;
  std::size_t largest = 0;
  for (const auto& [level, bytes] : caches()) {
    levels.push_back({"L" + std::to_string(level), bytes / 2});
    largest = std::max(largest, bytes);
  }
  levels.push_back({"memory", std::clamp(4 * largest, 64 * kMegabyte, 1024 * kMegabyte)});
  return levels;
}

std::vector<float> random_bytes(std::size_t bytes) {
  testing::Random random(9);
  std::vector<float> values(bytes / sizeof(float));
  for (float& value : values) value = static_cast<float>(random.uniform());
  return values;
}

}  // namespace multihead::bench

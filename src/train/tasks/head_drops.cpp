// SPDX-License-Identifier: Apache-2.0
// What each skill loses when one head after the other is switched off.
#include "train/tasks/head_drops.hpp"

#include <algorithm>
#include <functional>
#include <utility>

namespace multihead {
namespace {

constexpr double kNoticed = 0.05;

std::string label_of(const std::vector<std::string>& skills, std::span<const double> drops) {
  const auto most = std::max_element(drops.begin(), drops.end());
  if (!(*most > kNoticed)) return "spare";
  for (auto drop = drops.begin(); drop != drops.end(); ++drop)
    if (drop != most && !(*most >= 2 * *drop)) return "several";
  return skills[static_cast<std::size_t>(most - drops.begin())];
}

}  // namespace

Ablation drops_of_heads(const TransformerConfig& config, std::vector<std::string> skills, const MeasureSkills& measure,
                        const TransformerOptions& options) {
  const bool encodes = config.kind != TransformerConfig::Kind::decoder;
  const bool decodes = config.kind != TransformerConfig::Kind::encoder;
  const std::pair<const char*, std::int64_t> stacks[] = {{"encoder", encodes ? config.encoder_layers : 0},
                                                         {"decoder", decodes ? config.decoder_layers : 0},
                                                         {"cross", encodes && decodes ? config.decoder_layers : 0}};
  std::vector<std::string> heads;
  std::int64_t layers = 0;
  for (const auto& [stack, count] : stacks)
    for (std::int64_t layer = 0; layer < count; ++layer, ++layers)
      for (std::int64_t head = 0; head < config.heads; ++head)
        heads.push_back(std::string(stack) + ' ' + std::to_string(layer) + '.' + std::to_string(head));

  Ablation found;
  const auto columns = static_cast<std::int64_t>(skills.size());
  found.whole = measure(options);
  found.drop = Matrix<double>(std::ssize(heads), columns);
  std::vector<double> gates(heads.size(), 1.0);
  for (std::size_t head = 0; head < heads.size(); ++head) {
    gates[head] = 0;
    TransformerOptions without = options;
    without.gates = {gates.data(), {layers, config.heads}};
    const std::vector<double> accuracy = measure(without);
    gates[head] = 1;
    const auto row = static_cast<std::int64_t>(head);
    for (std::int64_t skill = 0; skill < columns; ++skill)
      found.drop(row, skill) = found.whole[static_cast<std::size_t>(skill)] - accuracy[static_cast<std::size_t>(skill)];
    found.labels.push_back(label_of(skills, {&found.drop(row, 0), skills.size()}));
  }
  found.skills = std::move(skills), found.heads = std::move(heads);
  return found;
}

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// What each skill loses when one head after the other is switched off.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/tasks.hpp"

namespace multihead {

// The accuracy of each skill with these options' gates.
using MeasureSkills = std::function<std::vector<double>(const TransformerOptions&)>;

// Heads of the encoder, the decoder and the cross-attention, layer by layer. A head is labelled with the skill that
// loses more than 0.05 without it and at least twice as much as any other; "several" where two do, "spare" where none
// loses that much.
Ablation drops_of_heads(const TransformerConfig& config, std::vector<std::string> skills, const MeasureSkills& measure,
                        const TransformerOptions& options);

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// Heads whose output is multiplied by a number, as the command line names them and as an encoder takes them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "multihead/encoder.hpp"

namespace multihead::cli {

// Throws bad_option: a head that stands twice, in one list or in both, each the values of an option.
void check_once(const std::vector<HeadGate>& heads, const std::vector<HeadGate>& gates);

// (layers, heads): ones but for these. Throws bad_option for a layer or head that the model does not have; who asks.
Matrix<double> gates_of(std::span<const HeadGate> gates, const EncoderExtents& extents, const std::string& who);

// "5.11 times 0.5, 5.5 times 0".
std::string gates_text(std::span<const HeadGate> gates);

}  // namespace multihead::cli

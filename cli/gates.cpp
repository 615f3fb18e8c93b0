// SPDX-License-Identifier: Apache-2.0
// Heads whose output is multiplied by a number, as the command line names them and as an encoder takes them.
#include "gates.hpp"

#include <algorithm>

#include "json_text.hpp"

namespace multihead::cli {

void check_once(const std::vector<HeadGate>& heads, const std::vector<HeadGate>& gates) {
  const auto check = [](const HeadGate& gate, const std::vector<HeadGate>& list, std::size_t from, const char* where) {
    const bool again = std::any_of(list.begin() + static_cast<std::ptrdiff_t>(from), list.end(),
                                   [&](const HeadGate& o) { return o.layer == gate.layer && o.head == gate.head; });
    if (again)
      throw Error(ErrorCode::bad_option, std::string(where) + " head " + std::to_string(gate.layer) + '.' +
                                             std::to_string(gate.head) + "; one of them must do");
  };
  for (std::size_t i = 0; i < heads.size(); ++i) {
    check(heads[i], gates, 0, "--head and --gate both name");
    check(heads[i], heads, i + 1, "--head names twice");
  }
  for (std::size_t i = 0; i < gates.size(); ++i) check(gates[i], gates, i + 1, "--gate names twice");
}

Matrix<double> gates_of(std::span<const HeadGate> gates, const EncoderExtents& extents, const std::string& who) {
  Matrix<double> all(extents.layers, extents.heads);
  std::fill_n(all.data(), extents.layers * extents.heads, 1.0);
  const auto check = [&](const char* what, std::int64_t given, std::int64_t count) {
    if (given >= count)
      throw Error(ErrorCode::bad_option, who + ": " + what + " is " + std::to_string(given) + "; this model has " +
                                             std::to_string(count) + ", counted from 0");
  };
  for (const HeadGate& gate : gates) {
    check("a layer", gate.layer, extents.layers);
    check("a head", gate.head, extents.heads);
    all(gate.layer, gate.head) = gate.scale;
  }
  return all;
}

std::string gates_text(std::span<const HeadGate> gates) {
  std::string text;
  for (const HeadGate& gate : gates)
    text += (text.empty() ? "" : ", ") + std::to_string(gate.layer) + '.' + std::to_string(gate.head) + " times " +
            json_number(gate.scale);
  return text;
}

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// Parameters of a file that calls them otherwise than the model does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/training.hpp"

namespace multihead {

// How a parameter stands in a file.
struct Stored {
  std::string name;
  std::vector<std::int64_t> shape;
};
using Naming = Stored (*)(const Parameter<float>&);

// Its own name, with its rows and columns.
Stored as_it_is(const Parameter<float>& parameter);

// load_checkpoint() of parameters alone that stand as naming has it.
Metadata load_parameters(const std::filesystem::path& path, Parameters<float>& parameters, Naming naming);
void save_parameters(const std::filesystem::path& path, const Parameters<float>& parameters, Naming naming,
                     const Metadata& metadata);

}  // namespace multihead

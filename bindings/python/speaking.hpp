// SPDX-License-Identifier: Apache-2.0
// Decoders and their tokenizers as the module's classes hold them, over the C++ library.
#pragma once

#include <cstring>
#include <filesystem>
#include <optional>
#include <vector>

#include "c/status.hpp"
#include "fail.hpp"
#include "multihead/byte_pair.hpp"
#include "multihead/decoder.hpp"

namespace face {

struct OpenDecoder {
  multihead::Decoder decoder;
  std::vector<int64_t> end_ids;     // that end a text, as the folder says
  std::optional<int64_t> begin_id;  // stands for a prompt without tokens
};

// Runs without the GIL what may throw an exception of C++, which becomes one of Python.
template <class Run>
void run_released(const Run& run) {
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = multihead::c::guarded(run);
  }
  check(status);
}

// name: the bytes of a file's name, as os.fsencode gives them.
inline std::filesystem::path path_of(const nb::bytes& name, Place place) {
  if (std::strlen(name.c_str()) != name.size()) raise(PyExc_ValueError, place, "has the character 0");
  return name.c_str();
}

}  // namespace face

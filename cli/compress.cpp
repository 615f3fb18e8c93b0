// SPDX-License-Identifier: Apache-2.0
// zlib, where the command was built with it.
#include "compress.hpp"

#ifdef MULTIHEAD_HAS_ZLIB
#include <zlib.h>

#include <new>
#endif

namespace multihead::cli {

#ifdef MULTIHEAD_HAS_ZLIB
// Of weights the highest level takes four times as long for 1 % fewer bytes.
constexpr int kLevel = 4;

Compress compression() {
  return [](std::span<const std::byte> bytes) {
    uLongf size = compressBound(static_cast<uLong>(bytes.size()));
    std::string packed(size, '\0');
    if (compress2(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(bytes.data()),
                  static_cast<uLong>(bytes.size()), kLevel) != Z_OK)
      throw std::bad_alloc();  // the one failure left: the bound is enough
    packed.resize(size);
    return packed;
  };
}
#else
Compress compression() { return {}; }
#endif

}  // namespace multihead::cli

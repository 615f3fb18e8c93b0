// SPDX-License-Identifier: Apache-2.0
// libFuzzer entry of the .safetensors reader: the tensors of what it accepts tile the file, convert where their dtype
// does, and come back equal when they are written and read again.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "multihead/error.hpp"
#include "multihead/safetensors.hpp"

namespace {

using multihead::ErrorCode;
using multihead::Safetensors;
using multihead::StoredTensor;

void require(bool holds) {
  if (!holds) std::abort();
}

// How many elements a conversion gives, or -1 when the dtype has none to T.
template <class T>
std::int64_t converted(const StoredTensor& tensor) {
  try {
    const multihead::Elements<T> elements(tensor);
    require(elements.values().empty() || elements.in_place() == (static_cast<const void*>(elements.values().data()) ==
                                                                 static_cast<const void*>(tensor.bytes.data())));
    return std::ssize(elements.values());
  } catch (const multihead::Error& error) {
    require(error.code() == ErrorCode::unsupported);
    return -1;
  }
}

void check(const Safetensors& file, std::span<const std::byte> all) {
  std::size_t sum = 0;
  const StoredTensor* before = nullptr;
  for (const StoredTensor& tensor : file.tensors()) {
    require(!before || before->name < tensor.name);
    before = &tensor;
    require(file.find(tensor.name) == &tensor);
    require(tensor.bytes.data() >= all.data() && tensor.bytes.data() + tensor.bytes.size() <= all.data() + all.size());
    sum += tensor.bytes.size();
    std::int64_t count = 1;  // an empty tensor's other extents do not overflow either, but their product need not be 0
    for (const std::int64_t extent : tensor.shape) count *= std::max<std::int64_t>(extent, 1);
    for (const std::int64_t extent : tensor.shape) count *= extent == 0 ? 0 : 1;
    for (const std::int64_t had :
         {converted<float>(tensor), converted<double>(tensor), converted<std::int64_t>(tensor)})
      require(had == -1 || had == count);
  }
  require(sum < all.size());
}

bool same(const StoredTensor& a, const StoredTensor& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

void read_and_write(std::span<const std::byte> all) {
  try {
    const Safetensors file = Safetensors::parse(all, "input");
    check(file, all);
    if (file.find("")) return;  // read, since others write it, but not written
    static const std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("multihead_fuzz_" + std::to_string(getpid()) + ".safetensors");
    multihead::write_safetensors(path, file.tensors(), file.metadata());
    const Safetensors again(path);
    require(std::ranges::equal(file.tensors(), again.tensors(), same) && file.metadata() == again.metadata());
    std::filesystem::remove(path);
  } catch (const multihead::Error& error) {
    require(error.code() == ErrorCode::file_malformed);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read_and_write(std::as_bytes(std::span(data, size)));
  // Again with the length right for a header up to the last '}', which a change of the header rarely leaves so.
  std::vector<std::uint8_t> repaired(data, data + size);
  const auto end = std::find(repaired.rbegin(), repaired.rend(), '}').base();
  if (end - repaired.begin() <= 8) return 0;
  auto length = static_cast<std::uint64_t>(end - repaired.begin() - 8);
  for (std::size_t at = 0; at < 8; ++at, length >>= 8) repaired[at] = static_cast<std::uint8_t>(length);
  read_and_write(std::as_bytes(std::span(repaired)));
  return 0;
}

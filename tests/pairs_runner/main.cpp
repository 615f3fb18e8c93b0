// SPDX-License-Identifier: Apache-2.0
// Encodes the texts of a file with the byte-level tokenizer of a folder, and decodes what came out, for tests that
// compare both.
//
//   pairs_runner FOLDER TEXTS TOKENS
//
// Numbers are int32, little-endian. TEXTS: for each text its bytes, then it. TOKENS: for each text the number of ids,
// the ids, the bytes of what they decode to without special tokens, and that.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "multihead/byte_pair.hpp"

namespace {

void run(char** argv) {
  const multihead::BytePair tokenizer{std::filesystem::path(argv[1])};
  std::ifstream file(argv[2], std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::ofstream output(argv[3], std::ios::binary);
  const auto put = [&](auto value) {
    const auto number = static_cast<std::int32_t>(value);
    output.write(reinterpret_cast<const char*>(&number), sizeof number);
  };
  for (std::size_t at = 0; at < bytes.size();) {
    std::int32_t size = 0;
    if (bytes.size() - at < sizeof size) throw std::runtime_error("the texts end within a number");
    std::memcpy(&size, bytes.data() + at, sizeof size);
    const std::string text = bytes.substr(at + sizeof size, static_cast<std::size_t>(size));
    at += sizeof size + text.size();
    const std::vector<std::int64_t> ids = tokenizer.encode(text);
    put(ids.size());
    multihead::TextStream stream;
    std::string decoded;
    for (std::int64_t id : ids) {
      put(id);
      if (!tokenizer.special(id)) decoded += stream.put(tokenizer.bytes(id));
    }
    decoded += stream.end();
    put(decoded.size());
    output.write(decoded.data(), static_cast<std::streamsize>(decoded.size()));
  }
  if (!output.flush()) throw std::runtime_error(std::string(argv[3]) + " cannot be written");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) throw std::invalid_argument("pairs_runner FOLDER TEXTS TOKENS");
  run(argv);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}

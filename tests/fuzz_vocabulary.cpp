// SPDX-License-Identifier: Apache-2.0
// libFuzzer entry of vocab.txt's reader: no token is empty, twice or broken by a line, and the tokens written a line
// each are read as the same.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <span>
#include <string>

#include "multihead/error.hpp"
#include "multihead/model_files.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  multihead::WordPieceModel model;
  try {
    model = multihead::parse_vocabulary(std::as_bytes(std::span(data, size)), "input");
  } catch (const multihead::Error& error) {
    require(error.code() == multihead::ErrorCode::file_malformed);
    return 0;
  }
  std::set<std::string> seen;
  std::string text;
  for (const std::string& token : model.vocabulary) {
    require(!token.empty() && token.find('\n') == token.npos && seen.insert(token).second);
    text += token + "\n";
  }
  require(!seen.empty() && text.size() <= size + 1);
  for (const multihead::AddedToken& added : model.added)
    require(model.vocabulary.at(static_cast<std::size_t>(added.id)) == added.content && added.special);
  require(multihead::parse_vocabulary(std::as_bytes(std::span(text)), "again").vocabulary == model.vocabulary);
  return 0;
}

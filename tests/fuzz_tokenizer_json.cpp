// SPDX-License-Identifier: Apache-2.0
// libFuzzer entry of tokenizer.json's reader: no token twice, added tokens in order and in the vocabulary, and memory
// bounded by the input's.
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
    model = multihead::parse_tokenizer_json(std::as_bytes(std::span(data, size)), "input");
  } catch (const multihead::Error& error) {
    require(error.code() == multihead::ErrorCode::file_malformed || error.code() == multihead::ErrorCode::unsupported);
    return 0;
  }
  require(!model.vocabulary.empty() && model.vocabulary.size() <= 8 * size + 1025);
  std::set<std::string> seen;
  for (const std::string& token : model.vocabulary) require(token.empty() || seen.insert(token).second);
  std::int64_t last = -1;
  for (const multihead::AddedToken& added : model.added) {
    const auto id = static_cast<std::size_t>(added.id);
    require(added.id > last && id < model.vocabulary.size() + model.added.size() && !added.content.empty());
    if (id < model.vocabulary.size() && !model.vocabulary[id].empty())
      require(model.vocabulary[id] == added.content);
    else
      require(seen.insert(added.content).second);
    last = added.id;
  }
  require(seen.count(model.classify) == 1 && seen.count(model.separate) == 1 && model.max_letters >= 0);
  return 0;
}

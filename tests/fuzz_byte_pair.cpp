// SPDX-License-Identifier: Apache-2.0
// libFuzzer entry of the byte-level tokenizer's file: what is read makes a tokenizer or is refused, ids are in range,
// and a text comes back.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <span>
#include <string>

#include "multihead/byte_pair.hpp"
#include "multihead/error.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check_model(const multihead::BytePairModel& model, std::size_t size) {
  const auto ids = static_cast<std::int64_t>(model.vocabulary.size() + model.added.size());
  require(!model.vocabulary.empty() && model.vocabulary.size() <= 8 * size + 1025);
  std::set<std::string> seen;
  for (const std::string& token : model.vocabulary) require(token.empty() || seen.insert(token).second);
  const auto in_range = [&](std::int64_t id) { require(id >= 0 && id < ids); };
  for (const multihead::BytePairModel::Merge& merge : model.merges)
    in_range(merge.first), in_range(merge.second), in_range(merge.merged);
  for (std::int64_t id : model.before) in_range(id);
  for (std::int64_t id : model.after) in_range(id);
}

void check_text(const multihead::BytePair& tokenizer, const std::string& text, bool comes_back) {
  const std::vector<std::int64_t> ids = tokenizer.encode(text, false);
  for (std::int64_t id : ids) require(tokenizer.is_token(id));
  if (comes_back) require(tokenizer.decode(ids) == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using multihead::ErrorCode;
  multihead::BytePairModel model;
  try {
    model = multihead::parse_byte_pair_json(std::as_bytes(std::span(data, size)), "input");
  } catch (const multihead::Error& error) {
    require(error.code() == ErrorCode::file_malformed || error.code() == ErrorCode::unsupported);
    return 0;
  }
  check_model(model, size);
  try {
    const multihead::BytePair tokenizer(model);
    check_text(tokenizer, {reinterpret_cast<const char*>(data), size}, model.added.empty() && !model.prefix_space);
  } catch (const multihead::Error& error) {
    require(error.code() == ErrorCode::bad_option);
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
// What a sentence's vector is made of: the small files of a sentence-transformers folder.
#include <algorithm>

#include "io/json_fields.hpp"
#include "io/mapped_file.hpp"
#include "multihead/model_files.hpp"

namespace multihead {

namespace {

using io::Fields;
using io::Json;

constexpr const char* kName = "read_sentence_config";

// Calls read(json, origin).
template <class Read>
void read_json(const std::filesystem::path& path, const Read& read) {
  io::with_file(kName, path, [&](std::span<const std::byte> text, const io::Origin& origin) {
    const Json json = io::parse_json_file(text, origin);
    read(json, origin);
  });
}

template <class Read>
void if_there(const std::filesystem::path& path, const Read& read) {
  if (io::is_there(path)) read_json(path, read);
}

// The modules in their order, each with the last word of its type, and the folder of the pooling, if there is one.
std::string read_modules(const Json& json, const io::Origin& origin, SentenceConfig& config) {
  if (!json.is_array()) origin.malformed("it is " + io::kind_text(json) + "; it must be an array of modules");
  std::string pooling;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const Fields fields(json[i], origin, std::string("[").append(std::to_string(i)).append("]."));
    const std::string type = fields.required("type", fields.text({"type"}));
    config.modules.push_back(type.substr(type.rfind('.') + 1));
    const std::string path = fields.text({"path"}).value_or("");
    if (path == "." || path == ".." || path.find_first_of(std::string_view("/\\\0", 3)) != path.npos)
      fields.refuse("path", "is '" + io::printable(path) + "'; it must be the plain name of a folder");
    if (config.modules.back() == "Transformer" && !path.empty())
      throw Error(ErrorCode::unsupported, std::string(kName) + ": " + std::string(origin.file) + ": field '[" +
                                              std::to_string(i) + "].path' is '" + io::printable(path) +
                                              "'; a Transformer must be in the folder itself");
    if (config.modules.back() != "Pooling") continue;
    if (path.empty()) fields.refuse("path", "is missing or empty; that of a Pooling must be the name of its folder");
    if (!pooling.empty()) fields.refuse("type", "is Pooling once more; there must be one at most");
    pooling = path;
  }
  return pooling;
}

// What the newer form calls a mode, in the words of the older one.
std::string older_name(const std::string& mode) {
  if (mode == "cls") return "cls_token";
  return mode == "mean" || mode == "max" || mode == "weightedmean" ? mode + "_tokens" : mode;
}

// The modes that are on. Older files have a flag for each, newer ones name one, or several in an array.
void read_pooling(const Json& json, const io::Origin& origin, SentenceConfig& config) {
  const Fields fields(json, origin);
  constexpr std::string_view kFlag = "pooling_mode_";
  for (const auto& [key, value] : json.items())
    if (key.starts_with(kFlag) && fields.flag(key.c_str()).value_or(false))
      config.pooling.push_back(key.substr(kFlag.size()));
  const Json* const named = fields.find({"pooling_mode"});
  if (named && !config.pooling.empty())
    fields.refuse("pooling_mode", "stands beside pooling_mode_" + io::printable(config.pooling.front()) +
                                      "; it must be one form or the other");
  if (named)
    for (const std::string& mode :
         named->is_array() ? fields.texts("pooling_mode") : std::vector<std::string>{*fields.text({"pooling_mode"})})
      config.pooling.push_back(older_name(mode));
  if (config.pooling.empty()) fields.refuse("pooling_mode", "is missing, and no pooling_mode_ is on; one must be");
}

// What stands before each text unless another prompt is named.
void read_prompt(const Json& json, const io::Origin& origin, SentenceConfig& config) {
  const Fields fields(json, origin);
  const std::optional<std::string> name = fields.text({"default_prompt_name"});
  if (!name) return;
  if (!fields.has("prompts")) fields.refuse("prompts", "is missing; it must have the one of default_prompt_name");
  const Fields prompts = fields.inside("prompts");
  config.prompt = prompts.required(io::printable(*name).c_str(), prompts.text({name->c_str()}));
}

}  // namespace

SentenceConfig read_sentence_config(const std::filesystem::path& folder) {
  SentenceConfig config;
  std::string pooling;
  if_there(folder / "modules.json",
           [&](const Json& json, const io::Origin& origin) { pooling = read_modules(json, origin, config); });
  if (!pooling.empty())  // its file must be there
    read_json(folder / pooling / "config.json",
              [&](const Json& json, const io::Origin& origin) { read_pooling(json, origin, config); });
  if_there(folder / "sentence_bert_config.json", [&](const Json& json, const io::Origin& origin) {
    const Fields fields(json, origin);
    config.max_tokens = fields.whole({"max_seq_length"}, 1, std::int64_t{1} << 40);
    config.lowercase = fields.flag("do_lower_case").value_or(false);
  });
  if_there(folder / "config_sentence_transformers.json",
           [&](const Json& json, const io::Origin& origin) { read_prompt(json, origin, config); });
  return config;
}

}  // namespace multihead

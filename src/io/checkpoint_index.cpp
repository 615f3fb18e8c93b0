// SPDX-License-Identifier: Apache-2.0
// The index of a checkpoint: strict JSON, and no file name that leads out of the folder.
#include "io/checkpoint_index.hpp"

#include <new>

#include "io/json.hpp"
#include "io/stored_tensor.hpp"

namespace multihead::io {

namespace {

const Json& object_at(const Json& json, const char* key, const Origin& origin) {
  const Json& value = json.at(key);
  if (!value.is_object()) origin.malformed(std::string(key) + " is " + kind_text(value) + "; it must be an object");
  return value;
}

const std::string& file_of(const std::string& tensor, const Json& value, const Origin& origin) {
  const std::string start = "weight_map: " + tensor_text(tensor) + ": ";
  if (!value.is_string()) origin.malformed(start + "its file is " + kind_text(value) + "; it must be a string");
  const auto& file = value.get_ref<const std::string&>();
  const bool leads_away =
      file.empty() || file == "." || file == ".." || file.find_first_of(std::string_view("/\\\0", 3)) != file.npos;
  if (leads_away)
    origin.malformed(start + "its file '" + printable(file, 128) + "' is not the plain name of a file in the folder");
  return file;
}

}  // namespace

CheckpointIndex parse_checkpoint_index(std::span<const std::byte> text, const Origin& origin,
                                       const SafetensorsLimits& limits) try {
  if (text.size() > limits.header_bytes)
    origin.malformed("it has " + std::to_string(text.size()) + " bytes, at most " +
                     std::to_string(limits.header_bytes) + " are accepted");
  const Json json = parse_json(text, 0, origin);
  if (!json.is_object()) origin.malformed("it is " + kind_text(json) + "; it must be an object");
  if (json.contains("metadata")) {
    const Json& metadata = object_at(json, "metadata", origin);
    const auto size = metadata.find("total_size");
    if (size != metadata.end() && !(size->is_number() && size->get<double>() >= 0))
      origin.malformed("total_size of metadata is " + kind_text(*size) + "; it must be a number of at least 0");
  }
  if (!json.contains("weight_map")) origin.malformed("key 'weight_map' is missing");
  const Json& map = object_at(json, "weight_map", origin);
  if (map.size() > limits.tensors)
    origin.malformed("weight_map names " + std::to_string(map.size()) + " tensors, at most " +
                     std::to_string(limits.tensors) + " are accepted");
  CheckpointIndex index;
  for (const auto& [tensor, file] : map.items()) index.emplace_hint(index.end(), tensor, file_of(tensor, file, origin));
  return index;
} catch (const std::bad_alloc&) {
  origin.out_of_memory(text.size());
}

}  // namespace multihead::io

// SPDX-License-Identifier: Apache-2.0
// The writer of .safetensors, byte for byte the reference implementation's.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "io/dtypes.hpp"
#include "io/json.hpp"
#include "io/stored_tensor.hpp"
#include "multihead/error.hpp"
#include "multihead/safetensors.hpp"

namespace multihead {

namespace {

[[noreturn]] void refuse(const std::string& rule) { throw Error(ErrorCode::bad_option, "write_safetensors: " + rule); }

// text as JSON writes it; what stands for it in a sentence.
std::string quoted(std::string_view text, const char* what) try {
  return io::Json(text).dump();
} catch (const io::Json::type_error&) {
  refuse(what + (" '" + io::printable(text, 128)) + "' is not UTF-8");
}

// A tensor and the place of its dtype in kDtypes.
struct Row {
  std::size_t dtype;
  const StoredTensor* tensor;
};

// Checked, and in the order of the file: dtypes from the last to the first, names ascending.
std::vector<Row> rows_of(std::span<const StoredTensor> tensors) {
  std::vector<Row> rows;
  rows.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) {
    const std::string text = io::tensor_text(tensor.name);
    if (tensor.name.empty()) refuse("a tensor has an empty name; each must have one");
    if (tensor.name == io::kMetadataKey) refuse(text + " has the name of the metadata; it must have another");
    if (tensor.name.find('\0') != tensor.name.npos) refuse(text + " has a NUL in its name; it must have none");
    const std::size_t dtype = io::dtype_of(tensor.dtype);
    if (dtype == io::kDtypes.size())
      refuse(text + " has the dtype '" + io::printable(tensor.dtype) + "'; it must be one of the format's");
    io::check_size("write_safetensors", tensor, io::kDtypes[dtype]);
    rows.push_back({dtype, &tensor});
  }
  const auto name = [](const Row& row) { return row.tensor->name; };
  std::sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) { return name(a) < name(b); });
  const auto twice =
      std::adjacent_find(rows.begin(), rows.end(), [&](const Row& a, const Row& b) { return name(a) == name(b); });
  if (twice != rows.end()) refuse(io::tensor_text(name(*twice)) + " is given twice; a name must be given once");
  const auto place = [&](const Row& row) { return std::tuple(io::kDtypes.size() - row.dtype, name(row)); };
  std::sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) { return place(a) < place(b); });
  return rows;
}

std::string metadata_text(const Metadata& metadata) {
  std::vector<const Metadata::value_type*> order;
  order.reserve(metadata.size());
  for (const auto& pair : metadata) order.push_back(&pair);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
  std::string text;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto& [key, value] = *order[i];
    if (i > 0 && order[i - 1]->first == key)
      refuse("metadata has the key '" + io::printable(key, 128) + "' twice; a key must be given once");
    text += (i > 0 ? "," : "") + quoted(key, "metadata: key") + ":" + quoted(value, "metadata: value");
  }
  return quoted(io::kMetadataKey, "key") + ":{" + text + "}";
}

// Everything in front of the data.
std::string header_text(const std::vector<Row>& rows, const Metadata& metadata) {
  std::string text = "{";
  if (!metadata.empty()) text += metadata_text(metadata);
  std::size_t offset = 0;
  for (const auto& [dtype, tensor] : rows) {
    if (text.size() > 1) text += ',';
    const std::size_t begin = offset;
    offset += tensor->bytes.size();
    text += quoted(tensor->name, "tensor") + ":{\"dtype\":\"" + std::string(tensor->dtype) +
            "\",\"shape\":" + io::shape_text(tensor->shape) + ",\"data_offsets\":[" + std::to_string(begin) + ',' +
            std::to_string(offset) + "]}";
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > io::kMaxHeaderBytes)
    refuse("the header takes " + std::to_string(text.size()) + " bytes; it must take at most 100000000");
  std::string length(8, '\0');
  for (std::size_t at = 0; at < 8; ++at) length[at] = static_cast<char>(text.size() >> (8 * at) & 0xff);
  return length + text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                       const Metadata& metadata) {
  const std::vector<Row> rows = rows_of(tensors);
  const std::string header = header_text(rows, metadata);
  const std::string name = path.string();
  const io::Origin origin{"write_safetensors", name};
  io::OutputFile file(path, origin);
  file.write(header.data(), header.size());
  for (const Row& row : rows) file.write(row.tensor->bytes.data(), row.tensor->bytes.size());
  file.commit();
}

}  // namespace multihead

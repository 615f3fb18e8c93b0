// SPDX-License-Identifier: Apache-2.0
// The reader of .safetensors: sizes first, then the header's JSON, then that the tensors fill the file exactly.
#include "multihead/safetensors.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <new>
#include <tuple>

#include "io/dtypes.hpp"
#include "io/json.hpp"
#include "io/safetensors_state.hpp"
#include "io/stored_tensor.hpp"
#include "multihead/error.hpp"

namespace multihead {

namespace io {

namespace {

static_assert(std::endian::native == std::endian::little, "elements are used as they stand in the file");

constexpr std::size_t kLengthBytes = 8;

// The JSON of the header with its padding, once the sizes are right and it begins and ends as it must.
std::span<const std::byte> header_of(std::span<const std::byte> file, const Origin& origin,
                                     const SafetensorsLimits& limits) {
  if (file.size() < kLengthBytes)
    origin.malformed(file.size(), "the file ends before the 8 bytes of its header length");
  std::uint64_t size = 0;
  for (std::size_t at = kLengthBytes; at-- > 0;) size = size << 8 | std::to_integer<std::uint64_t>(file[at]);
  if (size > limits.header_bytes)
    origin.malformed(0, "the header length is " + std::to_string(size) + ", at most " +
                            std::to_string(limits.header_bytes) + " is accepted");
  if (size > file.size() - kLengthBytes)
    origin.malformed(0, "a header of " + std::to_string(size) + " bytes reaches beyond the end of the file, at " +
                            std::to_string(file.size()));
  const auto header = file.subspan(kLengthBytes, size);
  if (header.empty() || header.front() != std::byte{'{'}) origin.malformed(kLengthBytes, "the header begins with '{'");
  std::size_t end = header.size();
  while (header[end - 1] == std::byte{' '}) --end;
  if (header[end - 1] == std::byte{'\t'} || header[end - 1] == std::byte{'\n'} || header[end - 1] == std::byte{'\r'})
    origin.malformed(kLengthBytes + end - 1, "the header is padded with spaces only");
  return header;
}

// One entry of the header.
class Entry {
 public:
  Entry(std::string_view name, const Json& value, const Origin& origin) noexcept
      : name_(name), value_(value), origin_(origin) {}

  // Everything but the tensor's name. data is what follows the header.
  StoredTensor read(std::span<const std::byte> data) const {
    if (name_.find('\0') != name_.npos) refuse("a name has no NUL in it");
    if (!value_.is_object()) refuse("it is " + kind_text(value_) + "; it must be an object");
    for (const auto& [key, unused] : value_.items())
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        refuse("unknown key '" + printable(key) + "'; the keys are 'dtype', 'shape' and 'data_offsets'");
    StoredTensor tensor;
    const Dtype& dtype = read_dtype();
    tensor.dtype = dtype.name;
    tensor.shape = read_shape();
    tensor.bytes = read_bytes(data);
    const auto bits = size_in_bits(tensor.shape, dtype);
    if (!bits) refuse("the extents of shape other than zero multiply to a size of more than 63 bits, an overflow");
    if (*bits % 8 != 0)
      refuse("shape takes " + std::to_string(*bits) + " bits of " + std::string(dtype.name) +
             "; it must take whole bytes");
    if (static_cast<std::uint64_t>(*bits / 8) != tensor.bytes.size())
      refuse("shape takes " + std::to_string(*bits / 8) + " bytes of " + std::string(dtype.name) +
             ", data_offsets are " + std::to_string(tensor.bytes.size()) + " apart; they must agree");
    return tensor;
  }

 private:
  [[noreturn]] void refuse(const std::string& rule) const { origin_.malformed(tensor_text(name_) + ": " + rule); }

  const Json& at(const char* key) const {
    const auto found = value_.find(key);
    if (found == value_.end()) refuse(std::string("key '") + key + "' is missing");
    return *found;
  }

  const Dtype& read_dtype() const {
    const Json& value = at("dtype");
    if (!value.is_string()) refuse("dtype is " + kind_text(value) + "; it must be a string");
    const auto& text = value.get_ref<const std::string&>();
    const std::size_t place = dtype_of(text);
    if (place == kDtypes.size()) refuse("dtype '" + printable(text) + "' is unknown");
    return kDtypes[place];
  }

  std::vector<std::int64_t> read_shape() const {
    const Json& value = at("shape");
    if (!value.is_array()) refuse("shape is " + kind_text(value) + "; it must be an array");
    if (value.size() > kMaxRank)
      refuse("shape has " + std::to_string(value.size()) + " extents; at most 64 are accepted");
    std::vector<std::int64_t> shape;
    shape.reserve(value.size());
    for (const Json& extent : value) shape.push_back(read_number(extent, "shape"));
    return shape;
  }

  std::span<const std::byte> read_bytes(std::span<const std::byte> data) const {
    const Json& value = at("data_offsets");
    if (!value.is_array() || value.size() != 2) refuse("data_offsets must be an array of two numbers");
    const auto begin = static_cast<std::uint64_t>(read_number(value[0], "data_offsets"));
    const auto end = static_cast<std::uint64_t>(read_number(value[1], "data_offsets"));
    if (end < begin)
      refuse("data_offsets end at " + std::to_string(end) + ", before they begin at " + std::to_string(begin));
    if (end > data.size())
      refuse("data_offsets end at " + std::to_string(end) + ", the file holds " + std::to_string(data.size()) +
             " bytes of data");
    return data.subspan(begin, end - begin);
  }

  std::int64_t read_number(const Json& value, const char* key) const {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > static_cast<std::uint64_t>(kMaxNumber))
      refuse("a number of " + std::string(key) + " is " + kind_text(value) +
             "; it must be a whole number from 0 to 9007199254740992");
    return value.get<std::int64_t>();
  }

  std::string_view name_;
  const Json& value_;
  const Origin& origin_;
};

Metadata read_metadata(const Json& value, const Origin& origin) {
  if (!value.is_object()) origin.malformed("__metadata__ is " + kind_text(value) + "; it must be an object");
  Metadata metadata;
  metadata.reserve(value.size());
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string())
      origin.malformed("__metadata__: '" + printable(key, 128) + "' is " + kind_text(text) + "; it must be a string");
    metadata.emplace_back(key, text.get_ref<const std::string&>());
  }
  return metadata;
}

// Each byte of the data belongs to one tensor.
void check_coverage(std::span<const StoredTensor> tensors, std::span<const std::byte> data, const Origin& origin) {
  std::vector<const StoredTensor*> order;
  order.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) order.push_back(&tensor);
  const auto place = [](const StoredTensor* tensor) { return std::tuple(tensor->bytes.data(), tensor->bytes.size()); };
  std::sort(order.begin(), order.end(), [&](const auto* a, const auto* b) { return place(a) < place(b); });
  std::size_t end = 0;
  for (const StoredTensor* tensor : order) {
    const auto begin = static_cast<std::size_t>(tensor->bytes.data() - data.data());
    if (begin != end)
      origin.malformed(tensor_text(tensor->name) + ": data_offsets begin at " + std::to_string(begin) +
                       ", the tensors before it end at " + std::to_string(end) +
                       (begin < end ? "; tensors must not overlap" : "; no bytes may lie between tensors"));
    end += tensor->bytes.size();
  }
  if (end != data.size())
    origin.malformed("bytes follow the data: the tensors end at " + std::to_string(end) + ", the file holds " +
                     std::to_string(data.size()) + " bytes of data");
}

// Fills all of state but its file from that file's bytes.
void read(Safetensors::State& state, std::span<const std::byte> file, const Origin& origin,
          const SafetensorsLimits& limits) {
  const std::span<const std::byte> header = header_of(file, origin, limits);
  const std::span<const std::byte> data = file.subspan(kLengthBytes + header.size());
  try {
    const Json json = parse_json(header, kLengthBytes, origin);
    const bool described_itself = json.contains(kMetadataKey);
    const std::size_t count = json.size() - (described_itself ? 1 : 0);
    if (count > limits.tensors)
      origin.malformed("the header names " + std::to_string(count) + " tensors, at most " +
                       std::to_string(limits.tensors) + " are accepted");
    if (described_itself) state.metadata = read_metadata(json.at(kMetadataKey), origin);
    std::size_t letters = 0;
    for (const auto& [name, unused] : json.items()) letters += name.size();
    state.names.reserve(letters);  // never moved again: tensors look into it
    state.tensors.reserve(count);
    for (const auto& [name, value] : json.items()) {  // in ascending order
      if (name == kMetadataKey) continue;
      state.tensors.push_back(Entry(name, value, origin).read(data));
      state.names += name;
      state.tensors.back().name = std::string_view(state.names).substr(state.names.size() - name.size());
    }
    check_coverage(state.tensors, data, origin);
  } catch (const std::bad_alloc&) {
    origin.out_of_memory(header.size());
  }
}

}  // namespace

void check_limits(std::string_view function, const SafetensorsLimits& limits) {
  if (limits.header_bytes > kMaxHeaderBytes)
    throw Error(ErrorCode::bad_option, std::string(function) + ": header_bytes is " +
                                           std::to_string(limits.header_bytes) + "; it must be at most 100000000");
}

OpenSafetensors open_safetensors(const std::filesystem::path& path, const Origin& origin,
                                 const SafetensorsLimits& limits) {
  const auto state = std::make_shared<Safetensors::State>();
  state->file = MappedFile(path, origin);
  read(*state, state->file.bytes(), origin, limits);
  return state;
}

}  // namespace io

Safetensors::Safetensors(const std::filesystem::path& path, const SafetensorsLimits& limits) {
  io::check_limits("Safetensors", limits);
  const std::string name = path.string();
  state_ = io::open_safetensors(path, io::Origin{"Safetensors", name}, limits);
}

Safetensors Safetensors::parse(std::span<const std::byte> bytes, const std::string& name,
                               const SafetensorsLimits& limits) {
  io::check_limits("Safetensors::parse", limits);
  auto state = std::make_shared<State>();
  io::read(*state, bytes, io::Origin{"Safetensors::parse", name}, limits);
  return Safetensors(std::move(state));
}

std::span<const StoredTensor> Safetensors::tensors() const noexcept { return state_->tensors; }

const StoredTensor* Safetensors::find(std::string_view name) const noexcept {
  return io::find_tensor(state_->tensors, name);
}

const Metadata& Safetensors::metadata() const noexcept { return state_->metadata; }

}  // namespace multihead

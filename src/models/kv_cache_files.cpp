// SPDX-License-Identifier: Apache-2.0
// A sequence of a cache as named tensors: layers.0.k, layers.0.v, their scales, and what it is made of as metadata.
#include "multihead/kv_cache_files.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/kv_cache_rows.hpp"
#include "multihead/safetensors.hpp"

namespace multihead {

namespace {

constexpr const char* kLoad = "load_sequence";
constexpr const char* kFormat = "multihead.kv_sequence.1";
constexpr std::array<const char*, 4> kDtypes{"F32", "BF16", "F16", "I8"},
    kStorages{"float32", "bfloat16", "float16", "int8"};

using namespace kv_files;

// The metadata that tell a cache from another: what must be equal.
Metadata kind_of(const KvCacheSpec& spec) {
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  return {{"format", kFormat},
          {"storage", kStorages[static_cast<std::size_t>(spec.storage)]},
          {"scales", spec.scales == KvScales::per_token ? "per_token" : "per_channel"},
          {"layers", text(spec.layers)},
          {"kv_heads", text(spec.kv_heads)},
          {"head_dim", text(spec.head_dim)},
          {"value_dim", text(value_dim_of(spec))},
          {"window", spec.window ? text(*spec.window) : "none"},
          {"first", text(spec.first)}};
}

std::string name_of(std::int64_t layer, const char* part) { return "layers." + std::to_string(layer) + "." + part; }

// The tensors of a file, and the memory that they lie in.
class Tensors {
 public:
  template <class T>
  void add(std::string name, const char* dtype, std::vector<std::int64_t> shape, std::span<const T> values) {
    names_.push_back(std::make_unique<std::string>(std::move(name)));
    const auto bytes = std::as_bytes(values);
    memory_.push_back(std::make_unique<std::vector<std::byte>>(bytes.begin(), bytes.end()));
    stored_.push_back({*names_.back(), dtype, std::move(shape), *memory_.back()});
  }
  std::span<const StoredTensor> stored() const { return stored_; }

 private:
  std::vector<std::unique_ptr<std::string>> names_;
  std::vector<std::unique_ptr<std::vector<std::byte>>> memory_;
  std::vector<StoredTensor> stored_;
};

template <class E>
void add_layer(Tensors& tensors, const KvCache& cache, KvSequence sequence, std::int64_t layer) {
  const KvCacheSpec& spec = cache.spec();
  const KvRange gap = cache.given_back(sequence);
  const std::int64_t length = cache.length(sequence, layer), count = length - (gap.end - gap.begin);
  LayerRows<E> rows(spec, count);
  rows.read(cache, layer, sequence, {0, gap.end > gap.begin ? gap.begin : length}, 0);
  if (gap.end > gap.begin) rows.read(cache, layer, sequence, {gap.end, length}, gap.begin);
  const char* const dtype = kDtypes[static_cast<std::size_t>(spec.storage)];
  const std::int64_t heads = spec.kv_heads, v_dim = value_dim_of(spec);
  tensors.add<E>(name_of(layer, "k"), dtype, {heads, count, spec.head_dim}, rows.k);
  tensors.add<E>(name_of(layer, "v"), dtype, {heads, count, v_dim}, rows.v);
  if (spec.storage != KvStorage::int8) return;
  const auto of_channels = [&](const View3<const float>& all, std::int64_t width) {
    return std::span<const float>(all.data() + layer * heads * width, static_cast<std::size_t>(heads * width));
  };
  const bool by_token = rows.by_token;
  tensors.add<float>(name_of(layer, "k_scales"), "F32", {heads, by_token ? count : spec.head_dim},
                     by_token ? std::span<const float>(rows.k_scales) : of_channels(spec.k_scales, spec.head_dim));
  tensors.add<float>(name_of(layer, "v_scales"), "F32", {heads, by_token ? count : v_dim},
                     by_token ? std::span<const float>(rows.v_scales) : of_channels(spec.v_scales, v_dim));
}

// A file that is read into a cache, with what its sentences begin with.
class Source {
 public:
  Source(const std::filesystem::path& path, const KvCacheSpec& spec) : file_(path), spec_(spec), path_(path.string()) {
    for (const auto& [key, wanted] : kind_of(spec)) check_kind(key, wanted);
    gap_ = {number("given_back_begin"), number("given_back_end")};
    if (gap_.begin > gap_.end || (gap_.end > 0 && !spec.window))
      malformed("metadata: given_back is from " + std::to_string(gap_.begin) + " to " + std::to_string(gap_.end) +
                "; it must be a range of a sliding cache");
    const auto per_layer = static_cast<std::size_t>(spec.storage == KvStorage::int8 ? 4 : 2);
    if (file_.tensors().size() != per_layer * static_cast<std::size_t>(spec.layers))
      malformed("it has " + std::to_string(file_.tensors().size()) + " tensors; it must have " +
                std::to_string(per_layer) + " a layer");
  }

  KvRange gap() const { return gap_; }

  // Nothing is allocated that the file does not hold.
  template <class E>
  LayerRows<E> layer(std::int64_t layer) const {
    const StoredTensor &k = tensor(name_of(layer, "k")), &v = tensor(name_of(layer, "v"));
    const std::int64_t heads = spec_.kv_heads, count = k.shape.size() == 3 ? k.shape[1] : 0;
    const char* const dtype = kDtypes[static_cast<std::size_t>(spec_.storage)];
    check_tensor(k, dtype, {heads, count, spec_.head_dim});
    check_tensor(v, dtype, {heads, count, value_dim_of(spec_)});
    const std::int64_t gap = gap_.end - gap_.begin;
    if (gap > 0 && (count < gap_.begin || count + gap - *spec_.window < gap_.end))
      malformed("layers." + std::to_string(layer) + " has " + std::to_string(count) +
                " positions; the window of the next may not reach what was given back");
    LayerRows<E> rows(spec_, count);
    copy(k, rows.k);
    copy(v, rows.v);
    if constexpr (std::is_same_v<E, std::int8_t>) read_scales(layer, rows);
    return rows;
  }

 private:
  [[noreturn]] void malformed(const std::string& rule) const {
    throw Error(ErrorCode::file_malformed, std::string(kLoad) + ": " + path_ + ": " + rule);
  }
  const std::string* find(const std::string& key) const {
    for (const auto& [known, value] : file_.metadata())
      if (known == key) return &value;
    return nullptr;
  }
  void check_kind(const std::string& key, const std::string& wanted) const {
    const std::string* const found = find(key);
    if (!found || (key == "format" && *found != wanted))
      malformed("metadata: " + key + " is " + (found ? *found : "missing") + "; it must be " + wanted);
    if (*found != wanted)
      throw Error(ErrorCode::bad_option, std::string(kLoad) + ": " + path_ + ": " + key + " is " + *found +
                                             ", the cache's is " + wanted + "; they must be equal");
  }
  std::int64_t number(const std::string& key) const {
    const std::string* const found = find(key);
    std::int64_t value = 0;
    if (found) {
      const char* const end = found->data() + found->size();
      const auto [stop, error] = std::from_chars(found->data(), end, value);
      if (error == std::errc() && stop == end && value >= 0 && value <= std::int64_t{1} << 48) return value;
    }
    malformed("metadata: " + key + " is " + (found ? *found : "missing") + "; it must be a number from 0 to 2^48");
  }
  const StoredTensor& tensor(const std::string& name) const {
    const StoredTensor* const found = file_.find(name);
    if (!found) malformed("it has no tensor '" + name + "'; it must have one");
    return *found;
  }
  void check_tensor(const StoredTensor& found, const char* dtype, const std::vector<std::int64_t>& shape) const {
    if (found.dtype == dtype && found.shape == shape) return;
    std::string extents;
    for (const std::int64_t extent : shape) extents += (extents.empty() ? "" : ", ") + std::to_string(extent);
    malformed("tensor '" + std::string(found.name) + "' is not " + dtype + " (" + extents + "); it must be");
  }
  template <class E>
  static void copy(const StoredTensor& from, std::vector<E>& to) {
    if (!to.empty()) std::memcpy(to.data(), from.bytes.data(), from.bytes.size());
  }
  void read_scales(std::int64_t layer, LayerRows<std::int8_t>& rows) const {
    for (const bool keys : {true, false}) {
      const StoredTensor& found = tensor(name_of(layer, keys ? "k_scales" : "v_scales"));
      const std::vector<std::int8_t>& elements = keys ? rows.k : rows.v;
      if (std::find(elements.begin(), elements.end(), -128) != elements.end())
        malformed(std::string(keys ? "k" : "v") + " of layer " + std::to_string(layer) +
                  " has -128; it must have -127 to 127");
      if (!rows.by_token) {
        check_channels(found, keys ? spec_.k_scales : spec_.v_scales, layer);
        continue;
      }
      check_tensor(found, "F32", {rows.heads, rows.count});
      std::vector<float>& scales = keys ? rows.k_scales : rows.v_scales;
      copy(found, scales);
      for (const float scale : scales)
        if (!(scale >= 0 && std::isfinite(scale)))
          malformed("tensor '" + std::string(found.name) + "' has " + std::to_string(scale) +
                    "; it must be finite and not negative");
    }
  }
  void check_channels(const StoredTensor& found, const View3<const float>& all, std::int64_t layer) const {
    check_tensor(found, "F32", {all.extent(1), all.extent(2)});
    if (std::memcmp(found.bytes.data(), &all(layer, 0, 0), found.bytes.size()) != 0)
      throw Error(ErrorCode::bad_option, std::string(kLoad) + ": " + path_ + ": " + std::string(found.name) +
                                             " are not the cache's; they must be equal");
  }

  Safetensors file_;
  const KvCacheSpec& spec_;
  std::string path_;
  KvRange gap_;
};

// A sequence that is removed again unless it is kept.
class NewSequence {
 public:
  explicit NewSequence(KvCache& cache) : cache_(cache), name_(cache.add()) {}
  ~NewSequence() {
    if (!kept_) cache_.remove(name_);
  }
  NewSequence(const NewSequence&) = delete;
  NewSequence& operator=(const NewSequence&) = delete;
  KvSequence name() const { return name_; }
  KvSequence keep() {
    kept_ = true;
    return name_;
  }

 private:
  KvCache& cache_;
  KvSequence name_;
  bool kept_ = false;
};

}  // namespace

void save_sequence(const std::filesystem::path& path, const KvCache& cache, KvSequence sequence) {
  Tensors tensors;
  const KvRange gap = cache.given_back(sequence);
  for (std::int64_t layer = 0; layer < cache.spec().layers; ++layer)
    with_storage(cache.spec().storage, [&]<class E>() { add_layer<E>(tensors, cache, sequence, layer); });
  Metadata metadata = kind_of(cache.spec());
  metadata.emplace_back("given_back_begin", std::to_string(gap.begin));
  metadata.emplace_back("given_back_end", std::to_string(gap.end));
  write_safetensors(path, tensors.stored(), metadata);
}

KvSequence load_sequence(const std::filesystem::path& path, KvCache& cache) {
  NewSequence made(cache);
  const Source source(path, cache.spec());
  const KvRange gap = source.gap();
  const bool gapped = gap.end > gap.begin;
  with_storage(cache.spec().storage, [&]<class E>() {
    std::vector<LayerRows<E>> layers;
    for (std::int64_t layer = 0; layer < cache.spec().layers; ++layer) layers.push_back(source.layer<E>(layer));
    const auto append = [&](std::int64_t layer, std::int64_t from, std::int64_t to) {
      layers[static_cast<std::size_t>(layer)].append(cache, layer, made.name(), from, to);
    };
    for (std::int64_t layer = 0; layer < cache.spec().layers; ++layer)
      append(layer, 0, gapped ? gap.begin : layers[static_cast<std::size_t>(layer)].count);
    if (!gapped) return;
    cache.skip(made.name(), gap.end - gap.begin);
    for (std::int64_t layer = 0; layer < cache.spec().layers; ++layer)
      append(layer, gap.begin, layers[static_cast<std::size_t>(layer)].count);
  });
  return made.keep();
}

}  // namespace multihead

// SPDX-License-Identifier: Apache-2.0
// A training in a file: parameters, moments, steps. What is read is believed only when all of it fits.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "io/file.hpp"
#include "multihead/training.hpp"
#include "train/checkpoint.hpp"

namespace multihead {

namespace {

constexpr std::string_view kFirst = "first_moment/", kSecond = "second_moment/", kSteps = "adamw_steps";
constexpr std::int64_t kMostSteps = std::int64_t{1} << 53;
constexpr SafetensorsLimits kLimits{std::uint64_t{1} << 20, 100'000};

std::string prefixed(std::string_view prefix, std::string_view name) { return std::string(prefix) + std::string(name); }

std::vector<std::int64_t> extents_of(const Matrix<float>& values) { return {values.rows(), values.columns()}; }

StoredTensor stored(std::string_view name, const Matrix<float>& values) {
  return {name, "F32", extents_of(values), std::as_bytes(values.values())};
}

[[noreturn]] void refuse(ErrorCode code, const std::filesystem::path& path, const std::string& rule) {
  throw Error(code, "load_checkpoint: " + path.string() + ": " + rule);
}

// One tensor to be read, and where its values go.
struct Place {
  Stored as;
  Matrix<float>* values;
  bool moment, negative;  // negative: values below 0 may stand there
};

std::string extents_text(std::span<const std::int64_t> extents) {
  std::string text = "(";
  for (std::size_t i = 0; i < extents.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(extents[i]);
  return text + ")";
}

// Throws unless the file's tensor fits that place.
void check(const std::filesystem::path& path, const Safetensors& file, const Place& place) {
  const std::string& name = place.as.name;
  const StoredTensor* const tensor = file.find(name);
  if (!tensor) refuse(ErrorCode::shape_mismatch, path, "there is no '" + name + "'; the model has one");
  if (tensor->dtype != "F32" || tensor->shape != place.as.shape)
    refuse(ErrorCode::shape_mismatch, path,
           "'" + name + "' is " + std::string(tensor->dtype) + " " + extents_text(tensor->shape) +
               "; the model's is F32 " + extents_text(place.as.shape));
  if (!place.moment) return;
  const Elements<float> elements(*tensor);
  for (const float value : elements.values())
    if (!std::isfinite(value) || (value < 0 && !place.negative))
      refuse(ErrorCode::file_malformed, path,
             "'" + name + "' holds " + std::to_string(value) +
                 (place.negative ? "; it must be finite" : "; it must be finite and at least 0"));
}

// Throws for a tensor that no place asks for; without an optimiser moments are let pass.
void check_unknown(const std::filesystem::path& path, const Safetensors& file, const std::vector<Place>& places,
                   bool moments) {
  for (const StoredTensor& tensor : file.tensors()) {
    if (!moments && (tensor.name.starts_with(kFirst) || tensor.name.starts_with(kSecond))) continue;
    if (std::none_of(places.begin(), places.end(), [&](const Place& place) { return place.as.name == tensor.name; }))
      refuse(ErrorCode::shape_mismatch, path, "'" + io::printable(tensor.name, 128) + "' is no parameter of the model");
  }
}

std::int64_t take_steps(const std::filesystem::path& path, Metadata& metadata, bool needed) {
  const auto found =
      std::find_if(metadata.begin(), metadata.end(), [](const auto& pair) { return pair.first == kSteps; });
  if (found == metadata.end()) {
    if (needed) refuse(ErrorCode::file_malformed, path, "its metadata have no " + std::string(kSteps));
    return 0;
  }
  const std::string text = found->second;
  metadata.erase(found);
  std::int64_t steps = -1;
  const char* const end = text.data() + text.size();
  if (std::from_chars(text.data(), end, steps).ptr != end || steps < 0 || steps > kMostSteps)
    refuse(ErrorCode::file_malformed, path,
           std::string(kSteps) + " is '" + io::printable(text) + "'; it must be a whole number from 0 to 2^53");
  return steps;
}

Metadata load(const std::filesystem::path& path, Parameters<float>& parameters, AdamW<float>* optimizer,
              Naming naming) {
  const Safetensors file(path, kLimits);
  std::vector<Place> places;
  for (Parameter<float>& parameter : parameters.all())
    places.push_back({naming(parameter), &parameter.value, false, true});
  const auto moment = [](std::string_view prefix, const std::string& name, Matrix<float>& values, bool negative) {
    return Place{{prefixed(prefix, name), extents_of(values)}, &values, true, negative};
  };
  for (std::size_t i = 0; optimizer && i < optimizer->first_moments().size(); ++i) {
    const std::string& name = parameters.all()[i].name;
    places.push_back(moment(kFirst, name, optimizer->first_moments()[i], true));
    places.push_back(moment(kSecond, name, optimizer->second_moments()[i], false));
  }
  for (const Place& place : places) check(path, file, place);
  check_unknown(path, file, places, optimizer != nullptr);
  Metadata metadata = file.metadata();
  const std::int64_t steps = take_steps(path, metadata, optimizer != nullptr);

  for (const Place& place : places) {
    const Elements<float> elements(*file.find(place.as.name));
    std::copy(elements.values().begin(), elements.values().end(), place.values->data());
  }
  if (optimizer) optimizer->set_steps(steps);
  return metadata;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const Parameters<float>& parameters, AdamW<float>& optimizer,
                     const Metadata& metadata) {
  std::vector<std::string> names;
  std::vector<StoredTensor> tensors;
  const std::size_t count = optimizer.first_moments().size();
  names.reserve(2 * count);  // tensors hold views of them
  for (const Parameter<float>& parameter : parameters.all()) {
    if (parameter.name.starts_with(kFirst) || parameter.name.starts_with(kSecond))
      throw Error(ErrorCode::bad_option,
                  "save_checkpoint: the parameter '" + parameter.name + "' has the name of a moment");
    tensors.push_back(stored(parameter.name, parameter.value));
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::string& name = parameters.all()[i].name;
    tensors.push_back(stored(names.emplace_back(prefixed(kFirst, name)), optimizer.first_moments()[i]));
    tensors.push_back(stored(names.emplace_back(prefixed(kSecond, name)), optimizer.second_moments()[i]));
  }
  Metadata all = metadata;
  all.emplace_back(kSteps, std::to_string(optimizer.steps()));
  write_safetensors(path, tensors, all);
}

Stored as_it_is(const Parameter<float>& parameter) { return {parameter.name, extents_of(parameter.value)}; }

void save_parameters(const std::filesystem::path& path, const Parameters<float>& parameters, Naming naming,
                     const Metadata& metadata) {
  std::vector<Stored> all;
  std::vector<StoredTensor> tensors;
  for (const Parameter<float>& parameter : parameters.all()) all.push_back(naming(parameter));
  for (std::size_t i = 0; i < all.size(); ++i)
    tensors.push_back({all[i].name, "F32", all[i].shape, std::as_bytes(parameters.all()[i].value.values())});
  write_safetensors(path, tensors, metadata);
}

Metadata load_checkpoint(const std::filesystem::path& path, Parameters<float>& parameters, AdamW<float>* optimizer) {
  return load(path, parameters, optimizer, as_it_is);
}

Metadata load_parameters(const std::filesystem::path& path, Parameters<float>& parameters, Naming naming) {
  return load(path, parameters, nullptr, naming);
}

}  // namespace multihead

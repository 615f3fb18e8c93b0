// SPDX-License-Identifier: Apache-2.0
// The fields of a JSON object by name, each of its kind and in its range, or a sentence that says what is wrong.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "io/json.hpp"

namespace multihead::io {

// Names are those that families give one thing; null counts as absent. Two that differ are refused.
using Names = std::initializer_list<const char*>;

class Fields {
 public:
  // where: what stands before a field's name in sentences, such as "model." or nothing.
  Fields(const Json& object, const Origin& origin, std::string where = "")
      : object_(object), origin_(origin), where_(std::move(where)) {
    if (!object.is_object())
      origin.malformed((where_.empty() ? "it" : printable(where_.substr(0, where_.size() - 1), 256)) + " is " +
                       kind_text(object) + "; it must be an object");
  }

  [[noreturn]] void refuse(const std::string& field, const std::string& rule) const {
    origin_.malformed("field '" + printable(where_ + field, 256) + "' " + rule);
  }
  [[noreturn]] void refuse_kind(const std::string& field, const Json& value, const std::string& wanted) const {
    refuse(field, "is " + kind_text(value) + "; it must be " + wanted);
  }

  // The value and the name it has, or null.
  const Json* find(Names names, const char** called = nullptr) const {
    const Json* found = nullptr;
    const char* first = nullptr;
    for (const char* name : names) {
      const auto place = object_.find(name);
      if (place == object_.end() || place->is_null()) continue;
      if (found && *found != *place)
        refuse(name, "and field '" + where_ + first + "' mean one thing and differ; they must be the same");
      if (!found) found = &*place, first = name;
    }
    if (called && first) *called = first;
    return found;
  }
  bool has(const char* name) const { return find({name}) != nullptr; }
  Fields inside(const char* name) const { return Fields(*find({name}), origin_, where_ + name + "."); }

  std::optional<std::int64_t> whole(Names names, std::int64_t low, std::int64_t high) const {
    const char* name = nullptr;
    const Json* value = find(names, &name);
    if (!value) return std::nullopt;
    const bool fits = value->is_number_integer() &&
                      (!value->is_number_unsigned() ||
                       value->get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()}) &&
                      value->get<std::int64_t>() >= low && value->get<std::int64_t>() <= high;
    if (!fits) refuse_kind(name, *value, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    return value->get<std::int64_t>();
  }

  // From low to high, both allowed.
  std::optional<double> real(Names names, double low, double high) const {
    const char* name = nullptr;
    const Json* value = find(names, &name);
    if (!value) return std::nullopt;
    if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high))
      refuse_kind(name, *value, "a number from " + Json(low).dump() + " to " + Json(high).dump());
    return value->get<double>();
  }

  std::optional<bool> flag(const char* name) const {
    const Json* value = find({name});
    if (!value) return std::nullopt;
    if (!value->is_boolean()) refuse_kind(name, *value, "true or false");
    return value->get<bool>();
  }

  std::optional<std::string> text(Names names) const {
    const char* name = nullptr;
    const Json* value = find(names, &name);
    if (!value) return std::nullopt;
    if (!value->is_string()) refuse_kind(name, *value, "a string");
    return value->get<std::string>();
  }

  std::vector<std::string> texts(const char* name) const {
    std::vector<std::string> all;
    const Json* value = find({name});
    if (!value) return all;
    if (!value->is_array()) refuse_kind(name, *value, "an array of strings");
    for (const Json& element : *value) {
      if (!element.is_string()) refuse_kind(name, element, "an array of strings");
      all.push_back(element.get<std::string>());
    }
    return all;
  }

  template <class T>
  T required(const char* what, const std::optional<T>& value) const {
    if (!value) refuse(what, "is missing");
    return *value;
  }

  const Json& json() const { return object_; }
  const Origin& origin() const { return origin_; }

 private:
  const Json& object_;
  const Origin& origin_;
  std::string where_;
};

}  // namespace multihead::io

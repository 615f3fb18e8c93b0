// SPDX-License-Identifier: Apache-2.0
// Strict JSON: nlohmann_json reads, depth and duplicate keys are watched while the value is built.
#include "io/json.hpp"

#include <cstddef>
#include <iterator>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

namespace multihead::io {

namespace {

// The text, character by character, telling how far the parser has come.
class Character {
 public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Character() = default;
  Character(const char* at, const char** reached) noexcept : at_(at), reached_(reached) {}
  reference operator*() const noexcept { return *at_; }
  Character& operator++() noexcept {
    *reached_ = ++at_;
    return *this;
  }
  Character operator++(int) noexcept {
    const Character before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Character& other) const noexcept { return at_ == other.at_; }
  bool operator!=(const Character& other) const noexcept { return at_ != other.at_; }

 private:
  const char* at_ = nullptr;
  const char** reached_ = nullptr;
};

// What is refused, when so many characters had been read, the end of the text counted as one; 0: as Character tells.
struct Refused {
  std::string rule;
  std::size_t read = 0;
};

// Builds the value from the parser's events. nlohmann_json's own builder with a callback goes through all the siblings
// of each value it ends: a list of a million objects would take hours.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(Json& root) : root_(root) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // text has none
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    const auto [member, is_new] = open_.back()->get_ref<Json::object_t&>().try_emplace(std::move(name));
    if (!is_new) throw Refused{"an object has the key '" + printable(member->first, 128) + "' twice"};
    member_ = &member->second;
    return true;
  }
  bool parse_error(std::size_t read, const std::string&, const Json::exception& error) override {
    constexpr int kNumberOverflow = 406;
    throw Refused{error.id == kNumberOverflow ? "a number is beyond what a float64 holds" : "this is not JSON", read};
  }

 private:
  // Where the next value goes: the root, the member whose key was read, or the end of an array.
  template <class Value>
  Json* place(Value&& value) {
    Json* const at = open_.empty() ? &root_ : member_;
    member_ = nullptr;
    if (!at) return &open_.back()->get_ref<Json::array_t&>().emplace_back(std::forward<Value>(value));
    *at = std::forward<Value>(value);
    return at;
  }
  template <class Value>
  bool put(Value&& value) {
    place(std::forward<Value>(value));
    return true;
  }
  bool open(Json&& container) {
    if (open_.size() >= kMaxJsonDepth)
      throw Refused{"more than " + std::to_string(kMaxJsonDepth) + " values are nested"};
    open_.push_back(place(std::move(container)));
    return true;
  }
  bool close() noexcept {
    open_.pop_back();
    return true;
  }

  Json& root_;
  Json* member_ = nullptr;
  std::vector<Json*> open_;  // each holds the next; none grows before the next is closed
};

}  // namespace

Json parse_json(std::span<const std::byte> text, std::uint64_t first_byte, const Origin& origin) {
  const std::string_view all(reinterpret_cast<const char*>(text.data()), text.size());
  // What nlohmann_json passes over: it takes a NUL for the end, and skips a byte order mark.
  if (const std::size_t nul = all.find('\0'); nul != all.npos)
    origin.malformed(first_byte + nul, "this is not JSON: a NUL byte");
  if (all.starts_with("\xEF\xBB\xBF")) origin.malformed(first_byte, "this is not JSON: a byte order mark");
  const char* reached = all.data();
  try {
    Json json;
    Builder builder(json);
    Json::sax_parse(Character(all.data(), &reached), Character(all.data() + all.size(), &reached), &builder);
    return json;
  } catch (const Refused& refused) {
    const auto read = refused.read > 0 ? refused.read : static_cast<std::size_t>(reached - all.data());
    origin.malformed(first_byte + (read > 0 ? read - 1 : 0), refused.rule);
  } catch (const std::bad_alloc&) {
    origin.out_of_memory(text.size());
  }
}

Json parse_json_file(std::span<const std::byte> text, const Origin& origin) {
  if (text.size() > kMostFileBytes)
    origin.malformed("it has " + std::to_string(text.size()) + " bytes; at most " + std::to_string(kMostFileBytes) +
                     " are accepted");
  return parse_json(text, 0, origin);
}

std::string kind_text(const Json& value) {
  return value.is_number() || value.is_boolean() ? value.dump() : std::string("of type ") + value.type_name();
}

bool is_utf8(std::string_view text) try {
  static_cast<void>(Json(text).dump());
  return true;
} catch (const Json::type_error&) {
  return false;
}

}  // namespace multihead::io

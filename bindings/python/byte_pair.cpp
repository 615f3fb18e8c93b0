// SPDX-License-Identifier: Apache-2.0
// BytePair of the module: texts to the ids of byte-level tokens and back.
#include "multihead/byte_pair.hpp"

#include <nanobind/stl/unique_ptr.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c/tensors.hpp"
#include "faces.hpp"
#include "lists.hpp"
#include "speaking.hpp"

namespace face {
namespace {

using multihead::BytePair;

std::unique_ptr<BytePair> open(const nb::bytes& folder) {
  const std::filesystem::path path = path_of(folder, {"BytePair", "path"});
  std::unique_ptr<BytePair> made;
  run_released([&] { made = std::make_unique<BytePair>(path); });
  return made;
}

// text: what a tokenizer.json has; name: what errors call it.
std::unique_ptr<BytePair> parse(const nb::bytes& text, const nb::bytes& name) {
  const std::span whole(text.c_str(), text.size());
  const std::string called(name.c_str(), name.size());
  std::unique_ptr<BytePair> made;
  run_released(
      [&] { made = std::make_unique<BytePair>(multihead::parse_byte_pair_json(std::as_bytes(whole), called)); });
  return made;
}

// The bytes of a str, in UTF-8, or of bytes; they live as long as the object.
std::string_view bytes_of(nb::handle object, Place place) {
  if (PyBytes_Check(object.ptr()))
    return {PyBytes_AsString(object.ptr()), static_cast<size_t>(PyBytes_Size(object.ptr()))};
  if (!PyUnicode_Check(object.ptr()))
    raise(PyExc_TypeError, place, "has type " + name_of_type(object) + "; a str or bytes are wanted");
  Py_ssize_t length = 0;
  const char* const bytes = utf8(object, length, place);
  return {bytes, static_cast<size_t>(length)};
}

nb::list encode(const BytePair& tokenizer, nb::handle text, nb::handle added) {
  const std::string_view bytes = bytes_of(text, {"BytePair.encode", "text"});
  const bool with_added = flag(added, {"BytePair.encode", "added"});
  std::vector<int64_t> ids;
  run_released([&] { ids = tokenizer.encode(bytes, with_added); });
  nb::list result;
  for (const int64_t id : ids) result.append(id);
  return result;
}

nb::bytes decode(const BytePair& tokenizer, nb::handle given, nb::handle special) {
  Integers ids;
  ids.read_if(given, {"BytePair.decode", "ids"});
  if (!ids.given()) raise(PyExc_TypeError, {"BytePair.decode", "ids"}, "is None; a list or an array of ids is wanted");
  const bool with_special = flag(special, {"BytePair.decode", "special"});
  std::string bytes;
  run_released([&] {
    bytes = tokenizer.decode(multihead::c::list<std::int64_t>({"BytePair.decode", "ids"}, ids.get()), with_special);
  });
  return nb::bytes(bytes.data(), bytes.size());
}

nb::bytes token(const BytePair& tokenizer, nb::handle id) {
  const int64_t number = integer(id, {"BytePair.token", "id"});
  std::string_view bytes;
  run_released([&] { bytes = tokenizer.bytes(number); });
  return nb::bytes(bytes.data(), bytes.size());
}

nb::object find(const BytePair& tokenizer, nb::handle token) {
  const std::string_view bytes = bytes_of(token, {"BytePair.find", "token"});
  const std::optional<int64_t> id = tokenizer.find(bytes);
  return id ? nb::object(nb::int_(*id)) : nb::none();
}

bool is_token(const BytePair& tokenizer, nb::handle id) {
  return tokenizer.is_token(integer(id, {"BytePair.is_token", "id"}));
}

bool is_special(const BytePair& tokenizer, nb::handle id) {
  return tokenizer.special(integer(id, {"BytePair.is_special", "id"}));
}

}  // namespace

void add_byte_pair(nb::module_& module) {
  nb::class_<BytePair>(module, "BytePair")
      .def_static("open", &open)
      .def_static("parse", &parse)
      .def("encode", &encode, nb::arg().none(), nb::arg().none())
      .def("decode", &decode, nb::arg().none(), nb::arg().none())
      .def("token", &token, nb::arg().none())
      .def("find", &find, nb::arg().none())
      .def("is_token", &is_token, nb::arg().none())
      .def("is_special", &is_special, nb::arg().none())
      .def_prop_ro("size", &BytePair::size);
}

}  // namespace face

// SPDX-License-Identifier: Apache-2.0
// What stands in for decoders where the library is built without models: classes that cannot be made.
#include "faces.hpp"
#include "fail.hpp"

namespace face {
namespace {

template <int>
struct LeftOut {};

[[noreturn]] void refuse(const char* name) {
  raise(PyExc_ValueError, std::string(name) + ": the library is built without models; it must be built with utf8proc");
}

}  // namespace

void add_byte_pair(nb::module_& module) {
  const auto refused = [](const nb::args&) { refuse("BytePair"); };
  nb::class_<LeftOut<0>>(module, "BytePair").def_static("open", refused).def_static("parse", refused);
}

void add_decoder(nb::module_& module) {
  nb::class_<LeftOut<1>>(module, "Decoder").def_static("open", [](const nb::args&) { refuse("Decoder"); });
}

void add_generator(nb::module_& module) {
  nb::class_<LeftOut<2>>(module, "Generator").def_static("create", [](const nb::args&) { refuse("Generator"); });
}

}  // namespace face

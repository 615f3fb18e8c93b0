// SPDX-License-Identifier: Apache-2.0
// From a status of the C face, or a sentence, to an exception of Python; scalars and texts that are checked.
#pragma once

#include <nanobind/nanobind.h>

#include <initializer_list>
#include <string>

#include "multihead/multihead.h"

namespace face {

namespace nb = nanobind;

// The function and the argument of it that a sentence is about.
struct Place {
  const char* function;
  const char* argument;
};

[[noreturn]] void raise(PyObject* type, const std::string& sentence);
// "attention: q <rule>"
[[noreturn]] void raise(PyObject* type, Place place, const std::string& rule);
// "attention: q <rule>" from a TypeError, BufferError, ValueError or OverflowError, which becomes the new one's cause.
// Any other exception (KeyboardInterrupt, MemoryError, the caller's own) is raised again as it is.
[[noreturn]] void translate(const nb::python_error& cause, PyObject* type, Place place, const std::string& rule);
// "attention: q <rule>: <what the cause says>"; also: one more type that is translated.
[[noreturn]] void translate_saying_why(const nb::python_error& cause, PyObject* type, Place place,
                                       const std::string& rule, PyObject* also = nullptr);

// Does nothing for MH_OK; otherwise raises what the status stands for, with this thread's sentence. TypeError: an
// element type; OSError: a file; MemoryError; RuntimeError: a fault of the library; ValueError: everything else.
void check(mh_status status);

// "list", of an object's type.
std::string name_of_type(nb::handle object);
// repr() of an object, in UTF-8 whatever it holds.
std::string shown(nb::handle object);

// The UTF-8 of an argument that is a str without the character 0; it lives as long as the str.
const char* text(nb::handle object, Place place);
// The same with any characters, and how many bytes it has.
const char* utf8(nb::handle object, Py_ssize_t& length, Place place);
// Whether an object is a str and this one.
bool is_text(nb::handle object, const char* ascii);
// The place among choices of an argument that is one of them.
int32_t choice(nb::handle value, Place place, std::initializer_list<const char*> choices);

// An argument that is an integer of Python or has __index__, and is no bool.
int64_t integer(nb::handle object, Place place);
// The same from 0 to 2^64 - 1.
uint64_t word(nb::handle object, Place place);
// An argument that is a number: float, int or anything with __float__.
double number(nb::handle object, Place place);
// Whether an object is True or False, Python's or NumPy's.
bool is_flag(nb::handle object);
// True or False, Python's or NumPy's, and nothing else that could be taken for it.
bool flag(nb::handle object, Place place);

}  // namespace face

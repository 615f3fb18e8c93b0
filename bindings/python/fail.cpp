// SPDX-License-Identifier: Apache-2.0
// Statuses and sentences to exceptions; scalars and texts that are checked.
#include "fail.hpp"

#include <cstring>

namespace face {
namespace {

// The UTF-8 of a str, also of one that has none: its lone surrogates as \ud800.
std::string readable(nb::handle text) {
  const nb::object bytes = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace"));
  if (!bytes.is_valid()) throw nb::python_error();
  return std::string(PyBytes_AsString(bytes.ptr()), static_cast<size_t>(PyBytes_Size(bytes.ptr())));
}

std::string sentence_of(Place place, const std::string& rule) {
  return std::string(place.function) + ": " + place.argument + " " + rule;
}

[[noreturn]] void raise_with_cause(nb::python_error cause, PyObject* type, const std::string& sentence) {
  nb::raise_from(cause, type, "%s", sentence.c_str());
  throw nb::python_error();
}

// The exception, where it is of those with which an object refuses; any other passes.
nb::python_error refusal(const nb::python_error& cause, PyObject* also = nullptr) {
  if (also && cause.matches(also)) return cause;
  for (PyObject* type : {PyExc_TypeError, PyExc_BufferError, PyExc_ValueError, PyExc_OverflowError})
    if (cause.matches(type)) return cause;
  throw nb::python_error(cause);
}

nb::object index_of(nb::handle object, Place place) {
  const std::string rule = "; an integer is wanted";
  if (is_flag(object)) raise(PyExc_TypeError, place, "has type " + name_of_type(object) + rule);
  nb::object index = nb::steal(PyNumber_Index(object.ptr()));
  if (!index.is_valid()) {
    const nb::python_error cause;
    translate(cause, PyExc_TypeError, place, "has type " + name_of_type(object) + rule);
  }
  return index;
}

}  // namespace

void raise(PyObject* type, const std::string& sentence) {
  const nb::object text =
      nb::steal(PyUnicode_DecodeUTF8(sentence.data(), static_cast<Py_ssize_t>(sentence.size()), "backslashreplace"));
  if (text.is_valid()) PyErr_SetObject(type, text.ptr());
  throw nb::python_error();
}

void raise(PyObject* type, Place place, const std::string& rule) { raise(type, sentence_of(place, rule)); }

void translate(const nb::python_error& cause, PyObject* type, Place place, const std::string& rule) {
  raise_with_cause(refusal(cause), type, sentence_of(place, rule));
}

void translate_saying_why(const nb::python_error& cause, PyObject* type, Place place, const std::string& rule,
                          PyObject* also) {
  nb::python_error known = refusal(cause, also);
  const nb::object text = nb::steal(PyObject_Str(known.value().ptr()));
  if (!text.is_valid()) throw nb::python_error();
  raise_with_cause(std::move(known), type, sentence_of(place, rule) + ": " + readable(text));
}

void check(mh_status status) {
  if (status == MH_OK) return;
  PyObject* type = PyExc_ValueError;
  if (status == MH_BAD_TYPE) type = PyExc_TypeError;
  if (status == MH_FILE_MISSING || status == MH_FILE_MALFORMED) type = PyExc_OSError;
  if (status == MH_OUT_OF_MEMORY) type = PyExc_MemoryError;
  if (status == MH_INTERNAL_ERROR) type = PyExc_RuntimeError;
  std::string sentence = mh_last_error_message();  // which speaks of pointers
  for (size_t at = 0; (at = sentence.find(" NULL", at)) != std::string::npos;) sentence.replace(at, 5, " None");
  raise(type, sentence);
}

std::string name_of_type(nb::handle object) {
  const nb::object name = object.type().attr("__name__");
  return PyUnicode_Check(name.ptr()) ? readable(name) : "";
}

std::string shown(nb::handle object) { return readable(nb::repr(object)); }

const char* text(nb::handle object, Place place) {
  Py_ssize_t length = 0;
  const char* const bytes = utf8(object, length, place);
  if (std::strlen(bytes) != static_cast<size_t>(length))
    raise(PyExc_ValueError, place, "has the character 0: " + shown(object));
  return bytes;
}

const char* utf8(nb::handle object, Py_ssize_t& length, Place place) {
  if (!PyUnicode_Check(object.ptr()))
    raise(PyExc_TypeError, place, "has type " + name_of_type(object) + "; a str is wanted");
  const char* const bytes = PyUnicode_AsUTF8AndSize(object.ptr(), &length);
  if (!bytes) translate_saying_why(nb::python_error(), PyExc_ValueError, place, "cannot be written as UTF-8");
  return bytes;
}

bool is_text(nb::handle object, const char* ascii) {
  return PyUnicode_Check(object.ptr()) && PyUnicode_CompareWithASCIIString(object.ptr(), ascii) == 0;
}

int32_t choice(nb::handle value, Place place, std::initializer_list<const char*> choices) {
  std::string wanted;
  int32_t number = 0;
  for (const char* name : choices) {
    if (is_text(value, name)) return number;
    wanted += std::string(number++ ? ", \"" : "\"") + name + "\"";
  }
  raise(PyExc_ValueError, place, "is " + shown(value) + "; one of " + wanted + " is wanted");
}

int64_t integer(nb::handle object, Place place) {
  const nb::object index = index_of(object, place);
  const long long value = PyLong_AsLongLong(index.ptr());
  if (value == -1 && PyErr_Occurred())
    translate(nb::python_error(), PyExc_ValueError, place, "is an integer that 64 bits do not hold");
  return value;
}

uint64_t word(nb::handle object, Place place) {
  const nb::object index = index_of(object, place);
  const unsigned long long value = PyLong_AsUnsignedLongLong(index.ptr());
  if (value == static_cast<unsigned long long>(-1) && PyErr_Occurred())
    translate(nb::python_error(), PyExc_ValueError, place, "is an integer that 64 bits without a sign do not hold");
  return value;
}

double number(nb::handle object, Place place) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1 && PyErr_Occurred()) {
    const nb::python_error cause;
    if (cause.matches(PyExc_OverflowError))
      translate(cause, PyExc_ValueError, place, "is too large: float64 does not hold it");
    translate(cause, PyExc_TypeError, place, "has type " + name_of_type(object) + "; a number is wanted");
  }
  return value;
}

bool is_flag(nb::handle object) {
  if (PyBool_Check(object.ptr())) return true;
  if (PyLong_Check(object.ptr()) || PyUnicode_Check(object.ptr())) return false;
  const std::string type = name_of_type(object);
  return type == "bool" || type == "bool_";  // NumPy's
}

bool flag(nb::handle object, Place place) {
  if (object.ptr() == Py_True) return true;
  if (object.ptr() == Py_False) return false;
  if (!is_flag(object)) raise(PyExc_TypeError, place, "has type " + name_of_type(object) + "; True or False is wanted");
  const int truth = PyObject_IsTrue(object.ptr());
  if (truth < 0) throw nb::python_error();
  return truth == 1;
}

}  // namespace face

// SPDX-License-Identifier: Apache-2.0
// The conversion of lists: any element type in, int64 or float64 out, and an error for what that would change.
#include "lists.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace face {
namespace {

template <class T>
T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

double widened_bfloat16(const char* at) {
  return std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(at)) << 16);
}

double widened_float16(const char* at) {
  const uint16_t bits = load<uint16_t>(at);
  const int exponent = (bits >> 10) & 31;
  const double fraction = bits & 1023;
  double value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024, exponent - 25);
  if (exponent == 31) value = fraction == 0 ? HUGE_VAL : std::nan("");
  return bits & 0x8000 ? -value : value;
}

double floating(dlpack::Element element, const char* at) {
  if (element.code == dlpack::bfloat_code) return widened_bfloat16(at);
  if (element.bits == 16) return widened_float16(at);
  return element.bits == 32 ? load<float>(at) : load<double>(at);
}

int64_t integral(dlpack::Element element, const char* at) {
  const bool is_signed = element.code == dlpack::int_code;
  switch (element.bits) {
    case 8:
      return is_signed ? load<int8_t>(at) : load<uint8_t>(at);
    case 16:
      return is_signed ? load<int16_t>(at) : load<uint16_t>(at);
    case 32:
      return is_signed ? int64_t{load<int32_t>(at)} : int64_t{load<uint32_t>(at)};
    default:
      return load<int64_t>(at);
  }
}

int64_t whole(double value, Place place) {
  if (!(value >= -0x1p63 && value < 0x1p63) || value != std::trunc(value))
    raise(PyExc_ValueError, place, "has the element " + std::to_string(value) + "; integers are wanted");
  return static_cast<int64_t>(value);
}

template <class T>
T converted(dlpack::Element element, const char* at, Place place) {
  if (element.code == dlpack::float_code || element.code == dlpack::bfloat_code) {
    const double value = floating(element, at);
    if constexpr (std::is_same_v<T, double>) return value;
    return static_cast<T>(whole(value, place));
  }
  if (element.code == dlpack::uint_code && element.bits == 64 && load<uint64_t>(at) >> 63)
    raise(PyExc_ValueError, place, "has an element that 64 bits with a sign do not hold");
  return static_cast<T>(integral(element, at));
}

bool is_number(dlpack::Element element) {
  const bool is_integer = element.code == dlpack::int_code || element.code == dlpack::uint_code;
  const bool whole_bytes = element.bits == 8 || element.bits == 16 || element.bits == 32 || element.bits == 64;
  return (is_integer && whole_bytes) || type_of(element) == MH_BFLOAT16 ||
         (element.code == dlpack::float_code && type_of(element) != 0);
}

// More elements than any list has: 2 GiB of them, once converted.
constexpr int64_t kMost = int64_t{1} << 28;

void check_count(int64_t rows, int64_t columns, Place place) {
  if (rows >= 0 && columns >= 0 && rows <= kMost && columns <= kMost && rows * columns <= kMost) return;
  raise(PyExc_ValueError, place,
        "has " + (rows == 1 ? "" : std::to_string(rows) + " x ") + std::to_string(columns) + " elements; at most " +
            std::to_string(kMost) + " are read");
}

// Whether an item of a list is a row of numbers; a number that only looks like a sequence (an array without axes) is
// none.
bool is_row(nb::handle item) {
  if (!PySequence_Check(item.ptr()) || PyUnicode_Check(item.ptr())) return false;
  if (PySequence_Size(item.ptr()) >= 0) return true;
  const nb::python_error cause;
  if (!cause.matches(PyExc_TypeError)) throw nb::python_error(cause);
  return false;
}

}  // namespace

template <class T>
void List<T>::read_array(const Array& array, Place place) {
  if (!is_number(array.element()))
    raise(PyExc_TypeError, place, "has elements of " + name_of(array.element()) + "; numbers are wanted");
  const mh_tensor& tensor = array.tensor();
  const int64_t rows = tensor.rank == 2 ? tensor.shape[0] : 1;
  const int64_t row_stride = tensor.rank == 2 ? tensor.strides[0] : 0;
  const int64_t columns = tensor.shape[tensor.rank - 1], stride = tensor.strides[tensor.rank - 1];
  const int size = array.element().bits / 8;
  check_count(rows, columns, place);
  values_.reserve(static_cast<size_t>(rows * columns));
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column) {
      const char* at = static_cast<const char*>(tensor.data) + (row * row_stride + column * stride) * size;
      values_.push_back(converted<T>(array.element(), at, place));
    }
  tensor_.rank = tensor.rank;
  for (int axis = 0; axis < tensor.rank; ++axis) tensor_.shape[axis] = tensor.shape[axis];
}

template <class T>
void List<T>::append(nb::handle item, Place place) {
  if (is_flag(item)) raise(PyExc_TypeError, place, "has the element True or False; numbers are wanted");
  if constexpr (std::is_same_v<T, double>) {
    values_.push_back(number(item, place));
  } else {
    if (PyFloat_Check(item.ptr()))
      values_.push_back(whole(PyFloat_AsDouble(item.ptr()), place));
    else
      values_.push_back(integer(item, place));
  }
}

template <class T>
void List<T>::read_sequence(nb::handle object, Place place, int depth) {
  const Py_ssize_t count = PySequence_Size(object.ptr());
  if (count < 0) throw nb::python_error();
  check_count(1, count, place);
  tensor_.shape[depth] = count;
  for (Py_ssize_t i = 0; i < count; ++i) {
    const nb::object item = nb::steal(PySequence_GetItem(object.ptr(), i));
    if (!item.is_valid()) throw nb::python_error();
    const bool inner = is_row(item);
    if (i == 0 && depth == 0) tensor_.rank = inner ? 2 : 1;
    if (depth == 1 || tensor_.rank == 1) {
      append(item, place);
      continue;
    }
    if (!inner) raise(PyExc_ValueError, place, "has rows and numbers side by side");
    const int64_t before = tensor_.shape[1];
    read_sequence(item, place, 1);
    if (i > 0 && tensor_.shape[1] != before)
      raise(PyExc_ValueError, place,
            "has rows of " + std::to_string(before) + " and of " + std::to_string(tensor_.shape[1]) +
                " numbers; they must be equally long");
  }
  if (depth == 0 && count == 0) tensor_.rank = 1;
}

template <class T>
void List<T>::read_if(nb::handle object, Place place, bool rows) {
  if (object.is_none()) return;
  Array array;
  if (array.open(object, place)) {
    if (array.rank() > 2)
      raise(PyExc_ValueError, place, "has rank " + std::to_string(array.rank()) + "; a list of numbers is wanted");
    read_array(array, place);
  } else if (PySequence_Check(object.ptr()) && !PyUnicode_Check(object.ptr()) && !PyDict_Check(object.ptr())) {
    read_sequence(object, place, 0);
  } else {
    raise(PyExc_TypeError, place, "has type " + name_of_type(object) + "; a list or an array of numbers is wanted");
  }
  if (rows && tensor_.rank == 1) {
    tensor_.rank = 2;
    tensor_.shape[1] = tensor_.shape[0];
    tensor_.shape[0] = 1;
  }
  tensor_.type = std::is_same_v<T, double> ? MH_FLOAT64 : MH_INT64;
  tensor_.strides[tensor_.rank - 1] = 1;
  if (tensor_.rank == 2) tensor_.strides[0] = tensor_.shape[1];
  values_.reserve(1);  // a list that is empty has an address too
  tensor_.data = values_.data();
}

template class List<int64_t>;
template class List<double>;

}  // namespace face

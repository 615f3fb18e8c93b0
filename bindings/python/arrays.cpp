// SPDX-License-Identifier: Apache-2.0
// The reading of arrays: who lends the memory, what its elements are, how they are laid out.
#include "arrays.hpp"

#include <cstring>

#include "frameworks.hpp"

namespace face {
namespace {

constexpr char kElements[] = "float32, float64, bfloat16 or float16 are wanted";
constexpr char kArrays[] = "an array with the buffer protocol or DLPack (NumPy, PyTorch) is wanted";

// The element of a format of the struct module; kOther for what is none.
dlpack::Element element_of(const char* format, Py_ssize_t size) {
  if (!format) format = "B";
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  const auto bits = static_cast<uint8_t>(8 * size);
  if (format[0] == 0 || format[1] != 0 || size > 16) return {};
  if (std::strchr("fde", *format)) return {dlpack::float_code, bits, 1};
  if (std::strchr("bhilqn", *format)) return {dlpack::int_code, bits, 1};
  if (std::strchr("BHILQN", *format)) return {dlpack::uint_code, bits, 1};
  if (*format == '?') return {dlpack::bool_code, bits, 1};
  return {};
}

std::string name_of_device(int64_t type) {
  if (type == dlpack::cuda) return "cuda";
  if (type == dlpack::rocm) return "rocm";
  return "number " + std::to_string(type) + " of DLPack";
}

// The name of an array's dtype, or "" for what has none.
std::string name_of_dtype(nb::handle object) {
  if (!nb::hasattr(object, "dtype") || !nb::hasattr(object, "view")) return "";
  const nb::object dtype = object.attr("dtype");
  if (!nb::hasattr(dtype, "name")) return "";
  const nb::object name = dtype.attr("name");
  Py_ssize_t length = 0;
  return PyUnicode_Check(name.ptr()) ? utf8(name, length, {"dtype", "name"}) : "";
}

void check_device(int64_t device, Place place) {
  if (device != dlpack::cpu && device != dlpack::cuda_host && device != dlpack::rocm_host)
    raise(PyExc_ValueError, place, "is on device " + name_of_device(device) + "; only the CPU's memory is read");
}

// The first of what __dlpack_device__ returns, (type, id).
int64_t device_of(const nb::object& said, Place place) {
  const bool pair = PyTuple_Check(said.ptr()) && PyTuple_Size(said.ptr()) == 2;
  if (!pair || !PyLong_Check(PyTuple_GetItem(said.ptr(), 0)))
    raise(PyExc_TypeError, place,
          "has a __dlpack_device__ that returns " + shown(said) + "; (type of device, number) is wanted");
  return integer(said[0], place);
}

// The capsule of an object with __dlpack__: versioned where it can be had.
nb::object capsule_of(nb::handle object, Place place) {
  if (nb::hasattr(object, "__dlpack_device__"))  // asked first: what another device would have to do is never begun
    check_device(device_of(object.attr("__dlpack_device__")(), place), place);
  const nb::object method = object.attr("__dlpack__");
  nb::dict named;
  named["max_version"] = nb::make_tuple(1, 1);
  const nb::object none = nb::make_tuple();
  nb::object capsule = nb::steal(PyObject_Call(method.ptr(), none.ptr(), named.ptr()));
  if (!capsule.is_valid() && PyErr_ExceptionMatches(PyExc_TypeError)) {  // an older producer
    PyErr_Clear();
    capsule = nb::steal(PyObject_CallNoArgs(method.ptr()));
  }
  if (!capsule.is_valid()) translate_saying_why(nb::python_error(), PyExc_ValueError, place, "cannot be read");
  return capsule;
}

}  // namespace

mh_type type_of(dlpack::Element element) {
  switch (element.code) {
    case dlpack::float_code:
      return element.bits == 32 ? MH_FLOAT32 : element.bits == 64 ? MH_FLOAT64 : element.bits == 16 ? MH_FLOAT16 : 0;
    case dlpack::bfloat_code:
      return element.bits == 16 ? MH_BFLOAT16 : 0;
    case dlpack::int_code:
      return element.bits == 64 ? MH_INT64 : 0;
    case dlpack::bool_code:
      return element.bits == 8 ? MH_BOOL : 0;
    default:
      return 0;
  }
}

std::string name_of(dlpack::Element element) {
  const std::string bits = std::to_string(element.bits);
  switch (element.code) {
    case dlpack::float_code:
      return "float" + bits;
    case dlpack::bfloat_code:
      return "bfloat16";
    case dlpack::int_code:
      return "int" + bits;
    case dlpack::uint_code:
      return "uint" + bits;
    case dlpack::bool_code:
      return "bool";
    default:
      return "another type";
  }
}

Array::~Array() {
  if (has_buffer_) PyBuffer_Release(&buffer_);
}

void Array::take_buffer(Place place) {
  const Py_ssize_t size = buffer_.itemsize;
  if (size < 1) raise(PyExc_TypeError, place, std::string("has elements of no bytes; ") + kElements);
  const std::string_view wanted = "at least 1 axis and at most 4 are wanted";
  if (buffer_.ndim < 1 || buffer_.ndim > 4)
    raise(PyExc_ValueError, place, "has rank " + std::to_string(buffer_.ndim) + "; " + std::string(wanted));
  if (element_.code == dlpack::other_code) element_ = element_of(buffer_.format, size);
  tensor_.data = buffer_.buf;
  read_only_ = buffer_.readonly != 0;
  tensor_.rank = buffer_.ndim;
  if (!buffer_.shape) raise(PyExc_ValueError, place, "lends its memory without a shape");
  Py_ssize_t contiguous = size;  // the stride where a lender (ctypes) names none
  for (int axis = buffer_.ndim; axis-- > 0;) {
    const Py_ssize_t stride = buffer_.strides ? buffer_.strides[axis] : contiguous;
    if (!buffer_.strides) contiguous *= buffer_.shape[axis];
    if (buffer_.shape[axis] > 1 && stride % size != 0)
      raise(PyExc_ValueError, place,
            "has a stride of " + std::to_string(stride) + " bytes on axis " + std::to_string(axis) +
                ", which is no whole number of elements");
    tensor_.shape[axis] = buffer_.shape[axis];
    tensor_.strides[axis] = stride / size;
  }
}

bool Array::open_buffer(nb::handle object, Place place) {
  if (!PyObject_CheckBuffer(object.ptr())) return false;
  if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_RECORDS_RO) != 0) {
    const nb::python_error cause;
    const std::string dtype = name_of_dtype(object);
    if (dtype.empty()) translate_saying_why(cause, PyExc_ValueError, place, "cannot be read");
    if (dtype != "bfloat16") translate(cause, PyExc_TypeError, place, "has elements of " + dtype + "; " + kElements);
    owner_ = object.attr("view")("uint16");
    if (PyObject_GetBuffer(owner_.ptr(), &buffer_, PyBUF_RECORDS_RO) != 0) throw nb::python_error();
    element_ = {dlpack::bfloat_code, 16, 1};
  }
  has_buffer_ = true;
  take_buffer(place);
  return true;
}

void Array::take_capsule(nb::object capsule, Place place) {
  const dlpack::Tensor* given = nullptr;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    given = &static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))->tensor;
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    auto* versioned = static_cast<dlpack::Versioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (versioned->major != 1)
      raise(PyExc_ValueError, place, "comes in version " + std::to_string(versioned->major) + " of DLPack; 1 is read");
    read_only_ = versioned->flags & dlpack::read_only;
    given = &versioned->tensor;
  } else {
    raise(PyExc_TypeError, place, "has a __dlpack__ that does not return a DLPack capsule");
  }
  owner_ = std::move(capsule);  // its destructor releases the memory: it is lent, not taken over
  check_device(given->device_type, place);
  if (given->rank < 1 || given->rank > 4)
    raise(PyExc_ValueError, place,
          "has rank " + std::to_string(given->rank) + "; at least 1 axis and at most 4 are wanted");
  element_ = given->element;
  if (element_.lanes != 1) element_ = {};
  tensor_.data = static_cast<char*>(given->data) + given->byte_offset;
  tensor_.rank = given->rank;
  int64_t contiguous = 1;
  bool empty = false;
  for (int axis = given->rank; axis-- > 0;) {
    tensor_.shape[axis] = given->shape[axis];
    tensor_.strides[axis] = given->strides ? given->strides[axis] : contiguous;
    if (!given->strides) contiguous *= given->shape[axis];
    empty |= given->shape[axis] == 0;
  }
  if (!given->data && !empty) raise(PyExc_ValueError, place, "has elements and no memory");
}

bool Array::open_dlpack(nb::handle object, Place place) {
  if (is_torch(object)) {
    kind_ = Kind::torch;
    take_capsule(torch_capsule(object, place), place);
    return true;
  }
  if (!nb::hasattr(object, "__dlpack__")) return false;
  take_capsule(capsule_of(object, place), place);
  return true;
}

bool Array::open(nb::handle object, Place place) {
  refuse_masked(object, place);
  if (!open_buffer(object, place) && !open_dlpack(object, place)) return false;
  tensor_.type = type_of(element_);
  const uint64_t size = element_.bits / 8;
  if (size > 1 && reinterpret_cast<uintptr_t>(tensor_.data) % size != 0)
    raise(PyExc_ValueError, place,
          "begins at an address that is no multiple of " + std::to_string(size) + ", as elements of " +
              name_of(element_) + " must; pass a copy");
  return true;
}

void Array::read(nb::handle object, Place place, Wanted wanted) {
  if (!open(object, place)) raise(PyExc_TypeError, place, "has type " + name_of_type(object) + "; " + kArrays);
  if (wanted == Wanted::mask) {
    const bool bytes = element_.bits == 8 && (element_.code == dlpack::uint_code || element_.code == dlpack::bool_code);
    if (!bytes) raise(PyExc_TypeError, place, "has elements of " + name_of(element_) + "; bool is wanted");
    tensor_.type = MH_BOOL;
  } else if (wanted == Wanted::int64) {
    if (tensor_.type != MH_INT64)
      raise(PyExc_TypeError, place, "has elements of " + name_of(element_) + "; int64 is wanted");
  } else if (tensor_.type < MH_FLOAT32 || tensor_.type > MH_FLOAT16) {
    raise(PyExc_TypeError, place, "has elements of " + name_of(element_) + "; " + kElements);
  }
}

void Array::read_output(nb::handle object, Place place, Wanted wanted) {
  read(object, place, wanted);
  if (read_only_) raise(PyExc_ValueError, place, "is read-only; the result is written to it");
}

void Array::read_if(nb::handle object, Place place, Wanted wanted) {
  if (!object.is_none()) read(object, place, wanted);
}

void Array::add_axis() {
  for (int axis = tensor_.rank; axis > 0; --axis) {
    tensor_.shape[axis] = tensor_.shape[axis - 1];
    tensor_.strides[axis] = tensor_.strides[axis - 1];
  }
  tensor_.strides[0] = tensor_.shape[0] * tensor_.strides[0];
  tensor_.shape[0] = 1;
  ++tensor_.rank;
}

void Array::swap_axes(int one, int other) {
  std::swap(tensor_.shape[one], tensor_.shape[other]);
  std::swap(tensor_.strides[one], tensor_.strides[other]);
}

}  // namespace face

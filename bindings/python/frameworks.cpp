// SPDX-License-Identifier: Apache-2.0
// NumPy, ml_dtypes and PyTorch, each looked up once and kept.
#include "frameworks.hpp"

namespace face {
namespace {

// References that are kept for the life of the process: modules are not unloaded.
struct Torch {
  PyObject* tensor;
  PyObject* to_dlpack;
  PyObject* is_grad_enabled;
  PyObject* empty;
  PyObject* dtypes[6];
  PyObject* dtype;  // names of attributes
  PyObject* requires_grad;
  PyObject* is_neg;
  PyObject* device;
  PyObject* cpu;
};

PyObject* keep(nb::object object) { return object.release().ptr(); }

// NULL where torch has not been imported, or is still being imported.
const Torch* torch() {
  static const Torch* found = nullptr;
  if (found) return found;
  PyObject* modules = PyImport_GetModuleDict();
  PyObject* module = PyDict_GetItemString(modules, "torch");
  if (!module) return nullptr;
  const nb::handle imported(module);
  if (!nb::hasattr(imported, "Tensor") || !nb::hasattr(imported, "is_grad_enabled")) return nullptr;
  auto* made = new Torch{};
  made->tensor = keep(imported.attr("Tensor"));
  made->to_dlpack = keep(nb::module_::import_("torch.utils.dlpack").attr("to_dlpack"));
  made->is_grad_enabled = keep(imported.attr("is_grad_enabled"));
  made->empty = keep(imported.attr("empty"));
  made->dtypes[MH_FLOAT32] = keep(imported.attr("float32"));
  made->dtypes[MH_FLOAT64] = keep(imported.attr("float64"));
  made->dtypes[MH_BFLOAT16] = keep(imported.attr("bfloat16"));
  made->dtypes[MH_FLOAT16] = keep(imported.attr("float16"));
  made->dtypes[MH_INT64] = keep(imported.attr("int64"));
  made->dtype = keep(nb::steal(PyUnicode_InternFromString("dtype")));
  made->requires_grad = keep(nb::steal(PyUnicode_InternFromString("requires_grad")));
  made->is_neg = keep(nb::steal(PyUnicode_InternFromString("is_neg")));
  made->device = keep(nb::steal(PyUnicode_InternFromString("device")));
  made->cpu = keep(nb::steal(PyUnicode_InternFromString("cpu")));
  return found = made;
}

// What an attribute, or a method without arguments, of a tensor says.
bool says(nb::handle tensor, PyObject* name, bool method) {
  nb::object found = nb::steal(PyObject_GetAttr(tensor.ptr(), name));
  if (found.is_valid() && method) found = nb::steal(PyObject_CallNoArgs(found.ptr()));
  if (!found.is_valid()) throw nb::python_error();
  return found.ptr() == Py_True;
}

struct NumPy {
  PyObject* empty;  // NULL: it is not installed
  PyObject* dtypes[6];
};

const NumPy& numpy() {
  static const NumPy* found = nullptr;
  if (found) return *found;
  auto* made = new NumPy{};
  nb::object module = nb::steal(PyImport_ImportModule("numpy"));
  if (!module.is_valid()) {
    if (!PyErr_ExceptionMatches(PyExc_ImportError)) throw nb::python_error();
    PyErr_Clear();
    return *(found = made);
  }
  made->empty = keep(module.attr("empty"));
  const nb::object dtype = module.attr("dtype");
  made->dtypes[MH_FLOAT32] = keep(dtype("float32"));
  made->dtypes[MH_FLOAT64] = keep(dtype("float64"));
  made->dtypes[MH_FLOAT16] = keep(dtype("float16"));
  made->dtypes[MH_INT64] = keep(dtype("int64"));
  return *(found = made);
}

PyObject* bfloat16_of_numpy() {
  static PyObject* found = nullptr;
  if (found) return found;
  nb::object module = nb::steal(PyImport_ImportModule("ml_dtypes"));
  if (!module.is_valid()) {
    if (!PyErr_ExceptionMatches(PyExc_ImportError)) throw nb::python_error();
    PyErr_Clear();
    raise(PyExc_ImportError, "a NumPy array of bfloat16 wants ml_dtypes: pip install ml_dtypes");
  }
  return found = keep(nb::module_::import_("numpy").attr("dtype")(module.attr("bfloat16")));
}

nb::object shape_of(int rank, const int64_t* shape) {
  nb::object extents = nb::steal(PyTuple_New(rank));
  for (int axis = 0; axis < rank; ++axis) PyTuple_SetItem(extents.ptr(), axis, PyLong_FromLongLong(shape[axis]));
  return extents;
}

nb::object called(PyObject* function, nb::handle one, PyObject* dtype) {
  nb::object made = nb::steal(PyObject_CallFunctionObjArgs(function, one.ptr(), dtype, nullptr));
  if (!made.is_valid()) throw nb::python_error();
  return made;
}

nb::object empty_memory(Place place, mh_type type, int rank, const int64_t* shape) {
  if (type == MH_BFLOAT16) bfloat16_of_numpy();
  const std::string numpy = "; without NumPy (pip install numpy) none can be made";
  if (type == MH_FLOAT16) raise(PyExc_TypeError, place, "would have elements of float16" + numpy);
  const char* format = type == MH_FLOAT64 ? "d" : type == MH_INT64 ? "q" : "f";
  int64_t bytes = type == MH_FLOAT32 ? 4 : 8;
  for (int axis = 0; axis < rank; ++axis) {
    if (shape[axis] == 0) raise(PyExc_ValueError, place, "would have no elements" + numpy);
    bytes *= shape[axis];
  }
  const nb::object memory = nb::steal(PyByteArray_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(bytes)));
  if (!memory.is_valid()) throw nb::python_error();
  const nb::object view = nb::steal(PyMemoryView_FromObject(memory.ptr()));
  return view.attr("cast")("B").attr("cast")(format, shape_of(rank, shape));
}

// Whether an object is an array of NumPy and of no subclass; false until NumPy has been imported.
bool is_plain(nb::handle object) {
  static PyTypeObject* plain = nullptr;
  if (!plain) {
    PyObject* module = PyDict_GetItemString(PyImport_GetModuleDict(), "numpy");
    if (!module || !nb::hasattr(module, "ndarray")) return false;
    plain = reinterpret_cast<PyTypeObject*>(keep(nb::handle(module).attr("ndarray")));
  }
  return Py_TYPE(object.ptr()) == plain;
}

// NULL where numpy.ma has not been imported: then there is no masked array.
PyObject* masked_array() {
  static PyObject* found = nullptr;
  static PyObject* const name = PyUnicode_InternFromString("numpy.ma");
  if (found) return found;
  PyObject* module = PyDict_GetItemWithError(PyImport_GetModuleDict(), name);
  if (!module || !nb::hasattr(module, "MaskedArray")) return nullptr;
  return found = keep(nb::handle(module).attr("MaskedArray"));
}

}  // namespace

bool is_torch(nb::handle object) {
  const Torch* known = torch();
  if (!known) return false;
  if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == known->tensor) return true;
  const int is = PyObject_IsInstance(object.ptr(), known->tensor);
  if (is < 0) throw nb::python_error();
  return is == 1;
}

nb::object torch_capsule(nb::handle tensor, Place place) {
  const Torch& known = *torch();
  nb::object plain = nb::borrow(tensor);
  if (says(tensor, known.requires_grad, false)) {
    if (nb::cast<bool>(nb::handle(known.is_grad_enabled)()))
      raise(PyExc_ValueError, place,
            "requires a gradient, which is not computed here; pass it with .detach(), or call under torch.no_grad()");
    plain = tensor.attr("detach")();
  }
  if (says(plain, known.is_neg, true))
    raise(PyExc_ValueError, place, "is a view whose signs are still to be turned; pass it with .resolve_neg()");
  nb::object capsule = nb::steal(PyObject_CallFunctionObjArgs(known.to_dlpack, plain.ptr(), nullptr));
  if (!capsule.is_valid())  // RuntimeError: what PyTorch says of tensors without memory of their own
    translate_saying_why(nb::python_error(), PyExc_ValueError, place, "cannot be read", PyExc_RuntimeError);
  return capsule;
}

void refuse_masked(nb::handle object, Place place) {
  if (is_plain(object)) return;
  PyObject* masked = masked_array();
  if (masked && PyType_IsSubtype(Py_TYPE(object.ptr()), reinterpret_cast<PyTypeObject*>(masked)))
    raise(PyExc_TypeError, place,
          "is a numpy.ma.MaskedArray, whose mask would not be heeded; pass its .data, or .filled()");
}

nb::object empty(Place place, Kind kind, mh_type type, int rank, const int64_t* shape) {
  const nb::object extents = shape_of(rank, shape);
  if (kind == Kind::torch) {
    const Torch& known = *torch();
    nb::dict named;
    PyDict_SetItem(named.ptr(), known.dtype, known.dtypes[type]);
    PyDict_SetItem(named.ptr(), known.device, known.cpu);  // whatever torch.set_default_device() said
    nb::object arguments = nb::make_tuple(extents);
    nb::object made = nb::steal(PyObject_Call(known.empty, arguments.ptr(), named.ptr()));
    if (!made.is_valid()) throw nb::python_error();
    return made;
  }
  const NumPy& known = numpy();
  if (!known.empty) return empty_memory(place, type, rank, shape);
  return called(known.empty, extents, type == MH_BFLOAT16 ? bfloat16_of_numpy() : known.dtypes[type]);
}

void Result::make(Place place, Kind kind, mh_type type, int rank, const int64_t* shape) {
  object = empty(place, kind, type, rank, shape);
  array.read_output(object, place, type == MH_INT64 ? Wanted::int64 : Wanted::floating);
}

void Result::take(nb::handle given, Place place) {
  object = nb::borrow(given);
  array.read_output(given, place);
}

}  // namespace face

# SPDX-License-Identifier: Apache-2.0
"""Producers of DLPack capsules made by hand, in every form that a real one may take."""

import ctypes

Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("release", Release)]


class Versioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p), ("release", Release),
                ("flags", ctypes.c_uint64), ("tensor", Tensor)]


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
FLOAT, BFLOAT = 2, 4
NAMES = {False: b"dltensor", True: b"dltensor_versioned"}  # they live as long as the capsules


class Producer:
    """An array of NumPy behind a capsule of one's choice. calls: the last arguments of __dlpack__."""

    def __init__(self, array, versioned=True, code=FLOAT, strides=True, byte_offset=0, **changes):
        self.array, self.versioned, self.calls = array, versioned, []
        self.shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        self.strides = (ctypes.c_int64 * array.ndim)(*(s // array.itemsize for s in array.strides))
        tensor = Tensor(array.ctypes.data - byte_offset, 1, 0, array.ndim, code, 8 * array.itemsize, 1, self.shape,
                        self.strides if strides else None, byte_offset)
        self.managed = Versioned(1, 0, None, Release(), 0, tensor) if versioned else Managed(tensor, None, Release())
        for name, value in changes.items():
            setattr(self.managed.tensor if hasattr(tensor, name) else self.managed, name, value)

    def __dlpack__(self, **more):
        self.calls = [*self.calls[-5:], more]
        if not self.versioned and more:
            raise TypeError("an older producer takes no arguments")
        return new_capsule(ctypes.addressof(self.managed), NAMES[self.versioned], None)

    def __dlpack_device__(self):
        return (1, 0)

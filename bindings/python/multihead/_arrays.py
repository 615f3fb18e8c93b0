# SPDX-License-Identifier: Apache-2.0
"""The conversions of self_attention and multi_head_attention: what a student writes, as NumPy reads it."""

from __future__ import annotations

import sys
from typing import Any


def promoted(function: str, names: list[str], given: list[Any]) -> list[Any]:
    """The arrays in one type: integers, bools and rows of numbers as float64, and float32 beside float64 as float64."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given[0], torch.Tensor):
        return _tensors(torch, function, names, given)
    try:
        import numpy
    except ImportError:
        raise TypeError(f"{function}: rows of numbers and integers want NumPy: pip install numpy") from None
    arrays = []
    for name, value in zip(names, given):
        if isinstance(value, (list, tuple)):
            try:
                value = numpy.asarray(value)
            except ValueError:
                raise ValueError(f"{function}: {name} has rows of different lengths") from None
        elif not isinstance(value, numpy.ndarray):
            if not hasattr(value, "__dlpack__") and not hasattr(value, "__array_interface__"):
                value = _from_buffer(numpy, function, name, value)
            else:
                value = numpy.asarray(value)
        if value.dtype.kind in "iub":
            value = value.astype(numpy.float64)
        elif value.dtype not in (numpy.float32, numpy.float64):
            raise TypeError(f"{function}: {name} has elements of {value.dtype}; float32, float64 or integers are wanted")
        arrays.append(value)
    wanted = numpy.result_type(*arrays)
    return [value.astype(wanted, copy=False) for value in arrays]


def _from_buffer(numpy: Any, function: str, name: str, value: Any) -> Any:
    try:
        return numpy.asarray(memoryview(value))
    except (TypeError, ValueError):
        raise TypeError(f"{function}: {name} has type {type(value).__name__}; an array or rows of numbers are wanted") from None


def _tensors(torch: Any, function: str, names: list[str], given: list[Any]) -> list[Any]:
    for name, value in zip(names, given):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{function}: {name} has type {type(value).__name__}, X is a torch.Tensor; all must be tensors")
        if value.dtype in (torch.float16, torch.bfloat16) or value.is_complex():
            raise TypeError(f"{function}: {name} has elements of {value.dtype}; float32, float64 or integers are wanted")
    floats = {value.dtype for value in given}
    wanted = torch.float32 if floats == {torch.float32} else torch.float64
    return [value.to(wanted) for value in given]

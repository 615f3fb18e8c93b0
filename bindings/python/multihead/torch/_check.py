# SPDX-License-Identifier: Apache-2.0
"""What every tensor that comes in from PyTorch must be, and how many threads compute."""

import torch

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def tensor(function, name, value):
    """Raises unless the value is a dense tensor of a supported type on the CPU (or on meta, which has shapes only)."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{function}: {name} is of type {type(value).__name__}; it must be a torch.Tensor")
    if value.device.type not in ("cpu", "meta"):
        raise ValueError(f"{function}: {name} is on device {value.device}; multihead computes on the CPU, move it with "
                         f"{name}.cpu()")
    if value.is_nested or value.layout != torch.strided:
        layout = "nested" if value.is_nested else value.layout
        raise ValueError(f"{function}: {name} has layout {layout}; it must be a dense tensor (torch.strided)")
    if value.dtype not in TYPES:
        raise TypeError(f"{function}: {name} is {value.dtype}; it must be float32, float64, bfloat16 or float16")


def same_device(function, tensors):
    """Raises unless these, {name: tensor or None}, are on the device of the first."""
    (first, wanted), *others = tensors.items()
    for name, value in others:
        if value is not None and value.device != wanted.device:
            raise ValueError(f"{function}: {name} is on device {value.device}, {first} on {wanted.device}; they must be on "
                             f"one device")


def same_type(function, tensors):
    """Raises unless these, {name: tensor}, are of the type of the first."""
    (first, wanted), *others = tensors.items()
    for name, value in others:
        if value.dtype != wanted.dtype:
            raise TypeError(f"{function}: {name} is {value.dtype}, {first} is {wanted.dtype}; they must be the same")


def mask(function, name, value, dtype):
    """Raises unless the mask is boolean, or floating and of dtype or float32."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{function}: {name} is of type {type(value).__name__}; it must be a torch.Tensor")
    if value.device.type not in ("cpu", "meta") or value.is_nested or value.layout != torch.strided:
        raise ValueError(f"{function}: {name} is on device {value.device} with layout {value.layout}; it must be a "
                         f"dense tensor on the CPU")
    if value.dtype not in (torch.bool, torch.float32, dtype):
        raise TypeError(f"{function}: {name} is {value.dtype}; it must be bool, float32 or the type of the query, "
                        f"{dtype}")

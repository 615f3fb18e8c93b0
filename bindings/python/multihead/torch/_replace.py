# SPDX-License-Identifier: Apache-2.0
"""The exchange of attention modules in a model."""

from __future__ import annotations

from typing import TypeVar

import torch

from . import _check
from ._module import MultiheadAttention


Model = TypeVar("Model", bound=torch.nn.Module)


def replace(model: Model) -> Model:
    """Makes every torch.nn.MultiheadAttention in the model one of multihead's, in place, and returns the model.

    The modules stay the objects they are, with their parameters, hooks and mode: only their class changes, so nothing that
    refers to them has to follow. replaced(model) names them. A torch.nn.TransformerEncoder no longer makes nested
    tensors. Replacing twice is fine. Raises ValueError, before anything is changed, for a model without such a module and
    for one that cannot be replaced: a subclass, a scripted module, parameters that are not on the CPU or of another type
    than float32, float64, bfloat16 or float16, more than 1024 features a head. Replace before torch.compile."""
    found = [(name or "the model itself", module) for name, module in model.named_modules()
             if isinstance(module, torch.nn.MultiheadAttention) or _is_scripted(module)]
    if not found:
        raise ValueError("replace: the model has no torch.nn.MultiheadAttention")
    for name, module in found:
        why = _why_not(module)
        if why:
            raise ValueError(f"replace: {name} cannot be replaced: {why}")
    for _, module in found:
        module.__class__ = MultiheadAttention
        module._leave_fast_path()
    for module in model.modules():
        if isinstance(module, torch.nn.TransformerEncoder) and replaced(module):
            module.use_nested_tensor = False
    return model


def replaced(model: torch.nn.Module) -> list[str]:
    """The names of the modules in the model that are multihead's; "" is the model itself."""
    return [name for name, module in model.named_modules() if isinstance(module, MultiheadAttention)]


def _is_scripted(module):
    return isinstance(module, torch.jit.ScriptModule) and module.original_name == "MultiheadAttention"


def _why_not(module):
    if _is_scripted(module):
        return "it is scripted by torch.jit"
    if type(module) not in (torch.nn.MultiheadAttention, MultiheadAttention):
        return f"it is a {type(module).__module__}.{type(module).__qualname__}, whose forward may be another"
    if module.head_dim > 1024:
        return f"it has {module.head_dim} features a head; at most 1024 are supported"
    for name, parameter in module.named_parameters():
        if parameter.device.type not in ("cpu", "meta"):
            return f"its {name} is on device {parameter.device}; multihead computes on the CPU"
        if parameter.dtype not in _check.TYPES:
            return f"its {name} is {parameter.dtype}; it must be float32, float64, bfloat16 or float16"
    return ""

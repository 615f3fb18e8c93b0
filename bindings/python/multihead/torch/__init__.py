# SPDX-License-Identifier: Apache-2.0
"""PyTorch's attention computed by multihead on the CPU: a function, a module, and the exchange of modules in a model."""

from ._attention import scaled_dot_product_attention
from ._module import MultiheadAttention
from ._replace import replace, replaced

__all__ = ["MultiheadAttention", "replace", "replaced", "scaled_dot_product_attention"]

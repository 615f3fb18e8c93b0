# SPDX-License-Identifier: Apache-2.0
"""torch.nn.functional.scaled_dot_product_attention, and FlashAttention's call, over the registered operators."""

from __future__ import annotations

import torch
from torch import Tensor

from .._flash import number, probability
from . import _check, _operator
from ._gradient import draw_seed

_SDPA = "scaled_dot_product_attention"


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention, computed by multihead on the CPU.

      query (..., heads, L, E)   key (..., kv_heads, S, E)   value (..., kv_heads, S, Ev)   returns (..., heads, L, Ev)
      attn_mask, broadcast to (..., heads, L, S): boolean, True lets a key be seen; or floating, added to the scores

    Leading axes broadcast, and may be missing. is_causal: key j is seen by query i when j <= i, also where L and S
    differ; not together with attn_mask. scale: 1/sqrt(E) unless given. enable_gqa: heads is a multiple of kv_heads, and
    query head h reads key and value head h // (heads / kv_heads). A query that sees no key gets zeros. Tensors whose
    last axis is not contiguous are copied. torch.get_num_threads() threads compute.

    dropout_p: the probability with which a weight is dropped, below 1; its seed is drawn from PyTorch's generator. Gradients
    are those of query, key, value and a floating attn_mask. Raises ValueError or TypeError, with a sentence that names
    argument, value and rule, for what does not fit; NotImplementedError for tangents of forward-mode differentiation, and
    when a gradient is differentiated again."""
    scale = None if scale is None else number(_SDPA, "scale", scale)
    dropout_p = probability(_SDPA, dropout_p)
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        _check.tensor(_SDPA, name, tensor)
        if tensor.dim() < 2:
            raise ValueError(f"{_SDPA}: {name} has {tensor.dim()} axes; it must have at least 2")
    for name, tensor, axis, rule in (("query", query, -1, "last"), ("value", value, -2, "second last")):
        if tensor.shape[axis] != key.shape[axis]:
            raise ValueError(f"{_SDPA}: key has shape {tuple(key.shape)}, {name} {tuple(tensor.shape)}; their {rule} "
                             f"extents must be equal")
    _check.same_device(_SDPA, {"query": query, "key": key, "value": value})
    query, key, value = autocast(query, key, value)
    _check.same_type(_SDPA, {"query": query, "key": key, "value": value})
    if attn_mask is not None:
        if is_causal:
            raise ValueError(f"{_SDPA}: is_causal is True and attn_mask is given; only one of them may be")
        attn_mask = attn_mask.to(query.dtype) if _is_lowered(attn_mask) else attn_mask
        _check.mask(_SDPA, "attn_mask", attn_mask, query.dtype)
        _check.same_device(_SDPA, {"query": query, "attn_mask": attn_mask})
    leading = _leading(query, key, value, enable_gqa)
    if 0 in leading[-1:]:  # no heads: the library wants one
        return query.new_empty(*leading, query.shape[-2], value.shape[-1])
    q, k, v = _rank_4(query, leading), _kv(key, leading, enable_gqa), _kv(value, leading, enable_gqa)
    if k.shape[1] != v.shape[1]:
        k, v = (tensor.repeat_interleave(q.shape[1] // tensor.shape[1], 1) for tensor in (k, v))
    keep_mask, bias = _masks(attn_mask, leading, q, k)
    seed = draw_seed(query.device) if dropout_p else None
    out, _ = _operator.attention(q, k, v, keep_mask, None, bias, seed, "bhsd", bool(is_causal), scale, dropout_p)
    return out if len(leading) == 2 else out.reshape(*leading, *out.shape[-2:])


def _is_lowered(tensor):
    return (isinstance(tensor, torch.Tensor) and torch.is_autocast_enabled("cpu") and tensor.is_floating_point()
            and tensor.dtype != torch.float64)


def autocast(*tensors):
    """As PyTorch's operator under torch.autocast: in its lower type, but for float64."""
    return [tensor.to(torch.get_autocast_dtype("cpu")) if _is_lowered(tensor) else tensor for tensor in tensors]


def _leading(query, key, value, enable_gqa):
    """The axes before the last two of the output, which those of all three broadcast to."""
    shapes = [tuple(tensor.shape[:-2]) for tensor in (query, key, value)]
    for name, tensor in (("key", key), ("value", value)) if enable_gqa else ():
        if tensor.dim() < 3 or query.dim() < 3:
            raise ValueError(f"{_SDPA}: enable_gqa is True and {name} or query has no axis of heads; both need at least "
                             f"3 axes")
        if tensor.shape[-3] == 0 or query.shape[-3] % tensor.shape[-3] != 0:
            raise ValueError(f"{_SDPA}: query has {query.shape[-3]} heads, {name} {tensor.shape[-3]}; with enable_gqa "
                             f"those of query must be a multiple")
    if enable_gqa:
        shapes = [shapes[0], *((*shape[:-1], shapes[0][-1]) for shape in shapes[1:])]
    if shapes[0] == shapes[1] == shapes[2]:
        return shapes[0]
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        raise ValueError(f"{_SDPA}: query, key and value have shapes {tuple(query.shape)}, {tuple(key.shape)} and "
                         f"{tuple(value.shape)}; the axes before the last two must broadcast") from None


def _rank_4(tensor, leading):
    """The tensor with its axes before the last two as (batch, heads): a view where strides allow."""
    if tensor.shape[:-2] != leading:
        tensor = tensor.expand(*leading, *tensor.shape[-2:])
    if len(leading) < 2:
        return tensor[(None,) * (2 - len(leading))]
    return tensor if len(leading) == 2 else tensor.flatten(0, -4)


def _kv(tensor, leading, enable_gqa):
    """A key or value as rank 4; its heads stay fewer where they are shared."""
    if leading and (enable_gqa or (tensor.dim() >= 3 and tensor.shape[-3] == 1)):
        return _rank_4(tensor, (*leading[:-1], tensor.shape[-3]))
    return _rank_4(tensor, leading)


def _masks(mask, leading, q, k):
    """(keep_mask, bias) of rank 4."""
    if mask is None:
        return None, None
    scores = (*leading, q.shape[2], k.shape[2])
    if mask.dim() < 2 or mask.dim() > len(scores) or any(
            extent not in (1, wanted) for extent, wanted in zip(mask.shape[::-1], scores[::-1])):
        raise ValueError(f"{_SDPA}: attn_mask has shape {tuple(mask.shape)}; it must have at least 2 axes and broadcast "
                         f"to {tuple(scores)}")
    if mask.dim() > 4 or (len(leading) > 2 and mask.dim() > 3):
        mask = mask.expand(*scores).flatten(0, -4)
    mask = mask[(None,) * (4 - mask.dim())]
    if mask.dtype == torch.bool:
        return mask, None
    return None, mask.to(torch.float64) if q.dtype == torch.float64 else mask


def flash_attention(function, q, k, v, cu_seqlens, alibi_slopes, scale, window, softcap, dropout_p):
    """(out, lse) of multihead.flash_attn's functions."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        _check.tensor(function, name, tensor)
    _check.same_type(function, {"q": q, "k": k, "v": v})
    starts = [some if some is None or isinstance(some, torch.Tensor) else torch.tensor(some, device=q.device)
              for some in cu_seqlens]
    if alibi_slopes is not None and not isinstance(alibi_slopes, torch.Tensor):
        alibi_slopes = torch.tensor(alibi_slopes, device=q.device)
    _check.same_device(function, {"q": q, "k": k, "v": v, "alibi_slopes": alibi_slopes, "cu_seqlens_q": starts[0],
                                  "cu_seqlens_k": starts[1]})
    seed = draw_seed(q.device) if dropout_p else None
    return _operator.flash_attention(q, k, v, *starts, alibi_slopes, seed, scale, list(window), softcap, dropout_p)

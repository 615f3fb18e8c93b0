# SPDX-License-Identifier: Apache-2.0
"""The operators: registered, so that torch.compile and torch.export see them, with a backward that says no.

multihead::attention          out
multihead::attention_weights  out, weights
multihead::flash_attention    out, lse
multihead::gradient           raises: what backward calls

They are functional, and their outputs are contiguous and new. Axes by layout: "bhsd" is (batch, heads, length, dim),
"bshd" (batch, length, heads, dim), "sbhd" (length, batch, heads, dim). Masks and the bias have rank 4 and broadcast to
(batch, heads, q_len, kv_len).
"""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, library
from torch.autograd import forward_ad

import multihead

from .. import _flash
from . import _check

NO_GRADIENT = ("multihead has no gradient of attention yet: run the forward pass under torch.no_grad() or "
               "torch.inference_mode(), or train with torch.nn.functional.scaled_dot_product_attention")
_WORTH_SHARING = 1_000_000  # multiplications and additions
_CORE = {"bhsd": "bhsd", "bshd": "bshd", "sbhd": "bshd"}


def refuse_tangents(*tensors):
    """Forward-mode differentiation is refused by those who call an operator: PyTorch itself would drop the tangents."""
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(NO_GRADIENT)


def _plain(tensor):
    """The tensor as the library reads it: without its history, last axis contiguous (copied where it is not)."""
    tensor = tensor.detach()
    return tensor if tensor.shape[-1] <= 1 or tensor.stride(-1) == 1 else tensor.contiguous()


def _batch_first(tensor, layout):
    return tensor.transpose(0, 1) if layout == "sbhd" else tensor


def _one_device(q, k, v, keep_mask, drop_mask, bias):
    """For shapes without data: a tensor elsewhere would turn a call that computes into one that does not."""
    _check.same_device("multihead", {"q": q, "k": k, "v": v, "keep_mask": keep_mask, "drop_mask": drop_mask, "bias": bias})


def _out_shape(q, v):
    return (*q.shape[:-1], v.shape[-1])


def extents(q, k, layout):
    """batch, heads, q_len, kv_len."""
    batch, length, heads = {"bhsd": (0, 2, 1), "bshd": (0, 1, 2), "sbhd": (1, 0, 2)}[layout]
    return q.shape[batch], q.shape[heads], q.shape[length], k.shape[length]


def _threads(pairs, width):
    """PyTorch's threads, but one for a call too small to share: of that many (query, key) pairs over all heads."""
    return torch.get_num_threads() if pairs * width >= _WORTH_SHARING else 1


def _run(q, k, v, layout, keep_mask, drop_mask, bias, causal, scale, **more):
    out = q.new_empty(_out_shape(q, v))
    batch, heads, q_len, kv_len = extents(q, k, layout)
    threads = _threads(batch * heads * q_len * kv_len, q.shape[-1] + v.shape[-1])
    q, k, v = (_batch_first(_plain(tensor), layout) for tensor in (q, k, v))
    keep_mask, drop_mask, bias = (mask if mask is None else mask.detach() for mask in (keep_mask, drop_mask, bias))
    results = multihead.attention(q, k, v, layout=_CORE[layout], keep_mask=keep_mask, drop_mask=drop_mask, bias=bias,
                                  causal="top_left" if causal else False, scale=scale, threads=threads,
                                  out=_batch_first(out, layout), **more)
    return out, results


@library.custom_op("multihead::attention", mutates_args=(), device_types="cpu")
def attention(q: Tensor, k: Tensor, v: Tensor, keep_mask: Optional[Tensor], drop_mask: Optional[Tensor],
              bias: Optional[Tensor], layout: str, causal: bool, scale: Optional[float]) -> Tensor:
    return _run(q, k, v, layout, keep_mask, drop_mask, bias, causal, scale)[0]


@attention.register_fake
def _(q, k, v, keep_mask, drop_mask, bias, layout, causal, scale):
    _one_device(q, k, v, keep_mask, drop_mask, bias)
    return q.new_empty(_out_shape(q, v))


@library.custom_op("multihead::attention_weights", mutates_args=(), device_types="cpu")
def attention_weights(q: Tensor, k: Tensor, v: Tensor, keep_mask: Optional[Tensor], drop_mask: Optional[Tensor],
                      bias: Optional[Tensor], layout: str, causal: bool, scale: Optional[float],
                      mean: bool) -> Tuple[Tensor, Tensor]:
    out, (_, weights) = _run(q, k, v, layout, keep_mask, drop_mask, bias, causal, scale,
                             return_weights="mean" if mean else True)
    return out, weights.to(q.dtype)


@attention_weights.register_fake
def _(q, k, v, keep_mask, drop_mask, bias, layout, causal, scale, mean):
    _one_device(q, k, v, keep_mask, drop_mask, bias)
    batch, heads, q_len, kv_len = extents(q, k, layout)
    return q.new_empty(_out_shape(q, v)), q.new_empty((batch, q_len, kv_len) if mean else (batch, heads, q_len, kv_len))


@library.custom_op("multihead::flash_attention", mutates_args=(), device_types="cpu")
def flash_attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Optional[Tensor], cu_seqlens_k: Optional[Tensor],
                    alibi_slopes: Optional[Tensor], scale: Optional[float], window: List[int],
                    softcap: float) -> Tuple[Tensor, Tensor]:
    q, k, v = (_plain(tensor) for tensor in (q, k, v))
    slopes = alibi_slopes if alibi_slopes is None else alibi_slopes.detach()
    threads = _threads(q.shape[:-1].numel() * k.shape[-3], q.shape[-1] + v.shape[-1])
    return _flash.attend(q, k, v, cu_seqlens=(cu_seqlens_q, cu_seqlens_k), alibi_slopes=slopes, scale=scale,
                         window=window, softcap=softcap, threads=threads)


@flash_attention.register_fake
def _(q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes, scale, window, softcap):
    _check.same_device("multihead", {"q": q, "k": k, "v": v, "cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k,
                                     "alibi_slopes": alibi_slopes})
    sums = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(_out_shape(q, v)), q.new_empty((*q.shape[:-3], q.shape[-2], q.shape[-3]), dtype=sums)


@library.custom_op("multihead::gradient", mutates_args=())
def gradient(grads: List[Tensor], tensors: List[Tensor]) -> List[Tensor]:
    raise NotImplementedError(NO_GRADIENT)


@gradient.register_fake
def _(grads, tensors):
    return [torch.empty_like(tensor) for tensor in tensors]


def _remember(ctx, inputs, output):
    ctx.count = len(inputs)
    ctx.places = [place for place, value in enumerate(inputs) if isinstance(value, Tensor)]
    ctx.save_for_backward(*(inputs[place] for place in ctx.places))


def _backward(ctx, *grads):
    # An operator of its own, so that a graph with this backward in it can be traced, and only running it raises. It
    # takes the gradients that come in, so that no tracer moves it into the forward pass.
    gradients = [None] * ctx.count
    for place, value in zip(ctx.places, gradient([grad for grad in grads if grad is not None], list(ctx.saved_tensors))):
        gradients[place] = value if value.is_floating_point() else None
    return tuple(gradients)


for _operator in (attention, attention_weights, flash_attention):
    _operator.register_autograd(_backward, setup_context=_remember)

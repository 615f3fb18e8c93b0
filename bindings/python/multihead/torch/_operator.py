# SPDX-License-Identifier: Apache-2.0
"""The operators: registered, so that torch.compile and torch.export see them, and differentiable backward.

multihead::attention                  out, lse
multihead::attention_weights          out, lse, weights
multihead::flash_attention            out, lse
multihead::attention_backward         gradients of the first two
multihead::flash_attention_backward   gradients of the third

They are functional, and their outputs are contiguous and new. Axes by layout: "bhsd" is (batch, heads, length, dim),
"bshd" (batch, length, heads, dim), "sbhd" (length, batch, heads, dim). Masks and the bias have rank 4 and broadcast to
(batch, heads, q_len, kv_len). seed is an integer in a tensor where there is dropout.
"""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, library
from torch.autograd import forward_ad

import multihead

from .. import _flash
from . import _check
from ._gradient import NO_SECOND, NO_TANGENTS, gradients, plain, sum_of

_WORTH_SHARING = 1_000_000  # multiplications and additions
_CORE = {"bhsd": "bhsd", "bshd": "bshd", "sbhd": "bshd"}


def refuse_tangents(*tensors):
    """Raises for a tensor that carries a tangent of forward-mode differentiation, which would be dropped."""
    for tensor in tensors:
        if isinstance(tensor, Tensor) and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(NO_TANGENTS)


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


def _options(q, k, v, masks, layout, causal, scale, dropout_p, seed):
    """What multihead.attention and its backward are both told."""
    batch, heads, q_len, kv_len = extents(q, k, layout)
    keep_mask, drop_mask, bias = (mask if mask is None else mask.detach() for mask in masks)
    return {"layout": _CORE[layout], "keep_mask": keep_mask, "drop_mask": drop_mask, "bias": bias,
            "causal": "top_left" if causal else False, "scale": scale, **_flash.dropout(dropout_p, seed),
            "threads": _threads(batch * heads * q_len * kv_len, q.shape[-1] + v.shape[-1])}


def _run(q, k, v, masks, layout, causal, scale, dropout_p, seed, **more):
    """out, and what multihead.attention returns with it."""
    out = q.new_empty(_out_shape(q, v))
    options = _options(q, k, v, masks, layout, causal, scale, dropout_p, seed)
    q, k, v = (_batch_first(plain(tensor), layout) for tensor in (q, k, v))
    return out, *multihead.attention(q, k, v, out=_batch_first(out, layout), return_lse=True, **options, **more)[1:]


@library.custom_op("multihead::attention", mutates_args=(), device_types="cpu")
def attention(q: Tensor, k: Tensor, v: Tensor, keep_mask: Optional[Tensor], drop_mask: Optional[Tensor],
              bias: Optional[Tensor], seed: Optional[Tensor], layout: str, causal: bool, scale: Optional[float],
              dropout_p: float) -> Tuple[Tensor, Tensor]:
    return _run(q, k, v, (keep_mask, drop_mask, bias), layout, causal, scale, dropout_p, seed)


@attention.register_fake
def _(q, k, v, keep_mask, drop_mask, bias, seed, layout, causal, scale, dropout_p):
    _one_device(q, k, v, keep_mask, drop_mask, bias)
    return q.new_empty(_out_shape(q, v)), q.new_empty(extents(q, k, layout)[:3], dtype=sum_of(q.dtype))


@library.custom_op("multihead::attention_weights", mutates_args=(), device_types="cpu")
def attention_weights(q: Tensor, k: Tensor, v: Tensor, keep_mask: Optional[Tensor], drop_mask: Optional[Tensor],
                      bias: Optional[Tensor], seed: Optional[Tensor], layout: str, causal: bool, scale: Optional[float],
                      dropout_p: float, mean: bool) -> Tuple[Tensor, Tensor, Tensor]:
    out, lse, weights = _run(q, k, v, (keep_mask, drop_mask, bias), layout, causal, scale, dropout_p, seed,
                             return_weights="mean" if mean else True)
    return out, lse, weights.to(q.dtype)


@attention_weights.register_fake
def _(q, k, v, keep_mask, drop_mask, bias, seed, layout, causal, scale, dropout_p, mean):
    _one_device(q, k, v, keep_mask, drop_mask, bias)
    batch, heads, q_len, kv_len = extents(q, k, layout)
    return (q.new_empty(_out_shape(q, v)), q.new_empty((batch, heads, q_len), dtype=sum_of(q.dtype)),
            q.new_empty((batch, q_len, kv_len) if mean else (batch, heads, q_len, kv_len)))


def _inputs(wanted, q, k, v, fourth, name):
    """{name: input} of the inputs whose gradients are wanted."""
    return {each: tensor for flag, each, tensor in zip(wanted, ("q", "k", "v", name), (q, k, v, fourth)) if flag}


def _results(found, wanted, q, k, v, fourth, name):
    """The four gradients, each as the input it is of; an empty tensor for what was not wanted."""
    inputs = _inputs(wanted, q, k, v, fourth, name)
    return tuple(q.new_empty(0) if each not in inputs else
                 found[each].to(inputs[each].dtype).reshape(inputs[each].shape).contiguous() if each in found else
                 torch.zeros_like(inputs[each], memory_format=torch.contiguous_format) for each in ("q", "k", "v", name))


def _result_shapes(wanted, q, *others):
    return tuple(tensor.new_empty(tensor.shape) if flag else q.new_empty(0) for flag, tensor in zip(wanted, (q, *others)))


@library.custom_op("multihead::attention_backward", mutates_args=(), device_types="cpu")
def attention_backward(d_out: Optional[Tensor], d_lse: Optional[Tensor], d_weights: Optional[Tensor], q: Tensor, k: Tensor,
                       v: Tensor, out: Tensor, lse: Tensor, keep_mask: Optional[Tensor], drop_mask: Optional[Tensor],
                       bias: Optional[Tensor], seed: Optional[Tensor], layout: str, causal: bool, scale: Optional[float],
                       dropout_p: float, wanted: List[bool]) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    options = _options(q, k, v, (keep_mask, drop_mask, bias), layout, causal, scale, dropout_p, seed)
    forward = (_batch_first(tensor, layout) for tensor in (q, k, v, out))
    above = (d_out if d_out is None else _batch_first(d_out, layout), d_lse, d_weights)
    found = gradients(list(_inputs(wanted, q, k, v, bias, "bias")), above, (*forward, lse), **options)
    found = {name: gradient if name == "bias" else _batch_first(gradient, layout) for name, gradient in found.items()}
    return _results(found, wanted, q, k, v, bias, "bias")


@attention_backward.register_fake
def _(d_out, d_lse, d_weights, q, k, v, out, lse, keep_mask, drop_mask, bias, seed, layout, causal, scale, dropout_p,
      wanted):
    return _result_shapes(wanted, q, k, v, bias)


@library.custom_op("multihead::flash_attention", mutates_args=(), device_types="cpu")
def flash_attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Optional[Tensor], cu_seqlens_k: Optional[Tensor],
                    alibi_slopes: Optional[Tensor], seed: Optional[Tensor], scale: Optional[float], window: List[int],
                    softcap: float, dropout_p: float) -> Tuple[Tensor, Tensor]:
    call = _flash_call(q, k, v, (cu_seqlens_q, cu_seqlens_k), alibi_slopes, seed, scale, window, softcap, dropout_p)
    return _flash.attend(*(plain(tensor) for tensor in (q, k, v)), **call)


def _flash_call(q, k, v, cu_seqlens, alibi_slopes, seed, scale, window, softcap, dropout_p):
    """What _flash.attend and _flash.attend_backward are both told."""
    return {"cu_seqlens": cu_seqlens, "alibi_slopes": alibi_slopes if alibi_slopes is None else alibi_slopes.detach(),
            "scale": scale, "window": window, "softcap": softcap, "dropout_p": dropout_p, "seed": seed,
            "threads": _threads(q.shape[:-1].numel() * k.shape[-3], q.shape[-1] + v.shape[-1])}


@flash_attention.register_fake
def _(q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes, seed, scale, window, softcap, dropout_p):
    _check.same_device("multihead", {"q": q, "k": k, "v": v, "cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k,
                                     "alibi_slopes": alibi_slopes})
    return q.new_empty(_out_shape(q, v)), q.new_empty((*q.shape[:-3], q.shape[-2], q.shape[-3]), dtype=sum_of(q.dtype))


@library.custom_op("multihead::flash_attention_backward", mutates_args=(), device_types="cpu")
def flash_attention_backward(d_out: Optional[Tensor], d_lse: Optional[Tensor], q: Tensor, k: Tensor, v: Tensor,
                             out: Tensor, lse: Tensor, cu_seqlens_q: Optional[Tensor], cu_seqlens_k: Optional[Tensor],
                             alibi_slopes: Optional[Tensor], seed: Optional[Tensor], scale: Optional[float],
                             window: List[int], softcap: float, dropout_p: float,
                             wanted: List[bool]) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    call = _flash_call(q, k, v, (cu_seqlens_q, cu_seqlens_k), alibi_slopes, seed, scale, window, softcap, dropout_p)
    names = list(_inputs(wanted, q, k, v, alibi_slopes, "alibi_slopes"))
    found = _flash.attend_backward(gradients, names, (d_out, d_lse), *(plain(tensor) for tensor in (q, k, v, out, lse)), **call)
    return _results(found, wanted, q, k, v, alibi_slopes, "alibi_slopes")


@flash_attention_backward.register_fake
def _(d_out, d_lse, q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, alibi_slopes, seed, scale, window, softcap, dropout_p,
      wanted):
    return _result_shapes(wanted, q, k, v, alibi_slopes)


def _remember(ctx, inputs, output):
    """Of any of the three: their first seven inputs are tensors or None."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:7], *output[:2])
    ctx.options = inputs[7:]


def _derivative(backward, count):
    """Backward of an operator by another, which takes the gradients of so many outputs, and the first four options."""

    def differentiate(ctx, *grads):
        q, k, v, *others, out, lse = ctx.saved_tensors
        places = (0, 1, 2, 5)  # q, k, v, and the bias or the slopes
        wanted = [ctx.needs_input_grad[place] for place in places]
        results = [None] * len(ctx.needs_input_grad)
        if any(grad is not None for grad in grads):
            above = (*grads, None)[:count]
            found = backward(*above, q, k, v, out, lse, *others, *ctx.options[:4], wanted)
            for place, needed, gradient in zip(places, wanted, found):
                results[place] = gradient if needed else None
        return tuple(results)

    return differentiate


def _no_second(ctx, *grads):
    raise NotImplementedError(NO_SECOND)


attention.register_autograd(_derivative(attention_backward, 3), setup_context=_remember)
attention_weights.register_autograd(_derivative(attention_backward, 3), setup_context=_remember)
flash_attention.register_autograd(_derivative(flash_attention_backward, 2), setup_context=_remember)
attention_backward.register_autograd(_no_second)
flash_attention_backward.register_autograd(_no_second)


def _guard(operator):
    """Refuses tangents where PyTorch would drop them: before its own kernel of autograd."""
    kernel = library.get_kernel(operator, "AutogradMeta")  # the one of every device

    def guarded(keyset, *arguments):
        refuse_tangents(*arguments)
        return kernel.call_boxed(keyset, *arguments)

    _library.impl(operator, guarded, "AutogradCPU", with_keyset=True)


_library = library.Library("multihead", "FRAGMENT")  # registrations last as long as it
for _name in ("attention", "attention_weights", "flash_attention", "attention_backward", "flash_attention_backward"):
    _guard(getattr(torch.ops.multihead, _name).default)

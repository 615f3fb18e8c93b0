# SPDX-License-Identifier: Apache-2.0
"""The attention function of attn_implementation="multihead": what a module passes, said to multihead.attention."""

import torch

import multihead

from .. import _recording
from .._flash import dropout as dropout_option
from .._flash import probability
from ..torch._attention import autocast
from ..torch._gradient import Once, draw_seed, gradients, plain
from ..torch._operator import refuse_tangents
from ._cache import CachedStates, attend
from ._masks import MaskOfRanges

try:  # where a model notes what its caller asked to be kept; not all pass output_attentions on
    from transformers.utils.output_capturing import _active_collector
except ImportError as error:
    raise ImportError("multihead.transformers: transformers must note which outputs are kept, as 5.24 does in "
                      "transformers.utils.output_capturing") from error

# Keyword arguments that reach attention functions and say nothing about its result: flags of outputs and losses, the
# cache's, positions (queries and keys are turned already), and hints to kernels of others.
HARMLESS = frozenset({
    "output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "use_cache", "num_items_in_batch",
    "position_ids", "cache_position", "position_embeddings", "seq_idx", "deterministic", "logits_to_keep",
})
# Packed sequences as FlashAttention wants them: the mask says the same where there is one.
PACKING = frozenset({"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"})


class _Differentiable(torch.autograd.Function):
    """What run() gives, (out, lse, weights or None), as a function of the tensors that multihead.attention is told."""

    @staticmethod
    def forward(ctx, run, options, query, key, value, bias, sinks):
        out, lse, weights = run()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, bias, sinks, out, lse, options.get("keep_mask"))
        ctx.options = {name: option for name, option in options.items() if name not in ("bias", "sinks", "keep_mask")}
        return out, weights

    @staticmethod
    def backward(ctx, d_out, d_weights):
        query, key, value, bias, sinks, out, lse, keep_mask = ctx.saved_tensors
        if d_out is None and d_weights is None:
            return (None,) * 7
        inputs = {"q": query, "k": key, "v": value, "bias": bias, "sinks": sinks}
        wanted = [name for name, needed in zip(inputs, ctx.needs_input_grad[2:]) if needed]
        options = {**ctx.options, **_learned(bias, sinks), "keep_mask": keep_mask}

        def compute():
            found = gradients(wanted, (d_out if d_out is None else d_out.transpose(1, 2), None, d_weights),
                              (query, key, value, out.transpose(1, 2), lse), layout="bhsd", threads=None, **options)
            return tuple(found[name].to(inputs[name].dtype).reshape(inputs[name].shape) for name in wanted)

        found = dict(zip(wanted, Once.apply(compute, d_out, d_weights, *inputs.values())))
        return None, None, *(found.get(name) for name in inputs)


def _learned(bias, sinks):
    """The options of multihead.attention that may have a gradient."""
    return {"bias": None if bias is None else bias.detach(), "sinks": None if sinks is None else sinks.detach().double()}


def _check_named(module, named, attention_mask):
    for name, value in named.items():
        if value is None or name in HARMLESS or (name in PACKING and attention_mask is not None):
            continue
        more = " without a mask" if name in PACKING else ""
        raise ValueError(
            f'attn_implementation "multihead": {type(module).__name__} passes {name}{more}, which is not known; it may '
            'change the result, so it is not ignored. "eager" runs this model')


def _check_devices(**tensors):
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu":
            raise ValueError(f'attn_implementation "multihead": {name} is on device {tensor.device}; multihead computes on '
                             "the CPU, where all tensors must be")


def _check_shape(attention_mask, query, key):
    wanted = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    shape = tuple(attention_mask.shape)
    if len(shape) != 4 or any(have not in (1, want) for have, want in zip(shape, wanted)):
        raise ValueError(
            f'attn_implementation "multihead": attention_mask has shape {shape}; it must be (batch, heads, q_len, '
            f"kv_len) = {wanted}, or 1 where it repeats")


def _without_mask(module, query, key, is_causal, sliding_window):
    """No mask was made: the module says whether keys after the query are seen."""
    q_len, kv_len = query.shape[2], key.shape[2]
    if is_causal is None:
        is_causal = getattr(module, "is_causal", None)
    if is_causal is None and q_len > 1:
        raise ValueError(
            f'attn_implementation "multihead": {type(module).__name__} passes neither attention_mask nor is_causal, and '
            "has no attribute is_causal; one of them must say which keys a query sees")
    if not is_causal:
        if sliding_window is not None and sliding_window < kv_len:
            raise ValueError(
                f'attn_implementation "multihead": {type(module).__name__} passes sliding_window {sliding_window} without '
                f"attention_mask and is not causal, kv_len is {kv_len}; a window around each query must be in the mask")
        return {}
    if q_len not in (1, kv_len):
        raise ValueError(
            f'attn_implementation "multihead": {type(module).__name__} is causal and passes no attention_mask, q_len is '
            f"{q_len}, kv_len {kv_len}; they must be equal, or q_len 1")
    options = {"causal": True, "query_offset": kv_len - q_len}
    if sliding_window is not None:
        options["window"] = (sliding_window - 1, None)
    return options


def _mask_options(attention_mask, query, key):
    """(options, additive mask or None) of a mask."""
    if isinstance(attention_mask, MaskOfRanges) and (
            attention_mask.shape == (query.shape[0], 1, query.shape[2], key.shape[2])):
        return attention_mask.options, None
    if not isinstance(attention_mask, torch.Tensor):
        raise TypeError(
            f'attn_implementation "multihead": attention_mask is a {type(attention_mask).__name__}; it must be a tensor')
    _check_shape(attention_mask, query, key)
    if isinstance(attention_mask, MaskOfRanges):  # one batch entry for all
        attention_mask = attention_mask.elements()
    if attention_mask.dtype == torch.bool:
        return {"keep_mask": attention_mask}, None
    if not attention_mask.dtype.is_floating_point:
        raise TypeError(
            f'attn_implementation "multihead": attention_mask has dtype {attention_mask.dtype}; it must be bool (true: '
            "seen) or floating (added to scores)")
    return {}, attention_mask


def _weights_asked_for(named):
    if named.get("output_attentions") is not None:
        return bool(named["output_attentions"])
    return any("attentions" in key for key in _active_collector.get() or ())


def _run(module, query, key, value, options, weights):
    """out (batch, q_len, heads, value_dim), contiguous, lse, and the weights in query's dtype or None."""
    batch, heads, q_len, _ = query.shape
    out = torch.empty((batch, q_len, heads, value.shape[-1]), dtype=query.dtype, device=query.device)
    query, key, value = plain(query), plain(key), plain(value)
    recorders = _recording.wanting(module)
    for recorder in recorders:
        call = recorder.request(module, query, key, options)
        last = weights and recorder is recorders[-1]
        result = multihead.attention(query, key, value, out=out.transpose(1, 2), return_statistics=call.request,
                                     return_lse=True, return_weights=True if call.weights or last else None, **call.options)
        sums = None
        if call.sums is not None:  # a pass of its own, whose output is nobody's
            sums = multihead.attention(query, key, value, return_statistics=call.sums[0], **call.sums[1])[-1]
        recorder.add(call, result[-1], result[2] if call.weights else None, sums)
    if not recorders:
        result = multihead.attention(query, key, value, out=out.transpose(1, 2), return_lse=True,
                                     return_weights=True if weights else None, **options)
    return out, result[1], result[2].to(query.dtype) if weights else None


def _attend_cached(module, query, key, attention_mask, options, weights):
    """out of queries over a cache, where its keys need not be brought together for what is asked."""
    if weights or _recording.wanting(module) or (torch.is_grad_enabled() and query.requires_grad):
        return None
    if not options.keys().isdisjoint(("lengths", "segments")):  # a cache counts positions from its first
        options = {name: option for name, option in options.items() if name not in attention_mask.options}
        options["keep_mask"] = attention_mask.elements()
    return attend(plain(query), key, options)


@torch.compiler.disable
def attention_forward(module, query, key, value, attention_mask, scaling=None, dropout=0.0, softcap=None, s_aux=None,
                      position_bias=None, is_causal=None, sliding_window=None, **named):
    """softmax(bias + cap(query key^T * scaling), over the keys the mask shows) value, as Transformers' modules ask it.

    query (batch, heads, q_len, head_dim), key (batch, kv_heads, kv_len, head_dim), value (batch, kv_heads, kv_len,
    value_dim); attention_mask: what attention_mask() made, or a tensor (batch, heads, q_len, kv_len) or 1 where it
    repeats, boolean (true: seen) or floating (added); scaling None: 1/sqrt(head_dim); s_aux (heads): sinks;
    position_bias: added, (batch, heads, q_len, kv_len) or 1 where it repeats. sliding_window is in the mask; it is only
    read where there is none. Returns (output (batch, q_len, heads, value_dim), weights (batch, heads, q_len, kv_len) or
    None where output_attentions does not ask for them).

    dropout: the probability with which a weight is dropped; its seed is drawn from PyTorch's generator, and weights that are
    asked for are those before it. Gradients: of query, key, value, attention_mask, position_bias and s_aux, through output
    and weights. Under torch.autocast queries, keys and values are brought to its type. Raises NotImplementedError for
    tangents of forward-mode differentiation and for second derivatives, ValueError and TypeError for what is not known or
    does not fit.
    """
    _check_named(module, named, attention_mask)
    dropout = probability(f'attn_implementation "multihead": {type(module).__name__}', dropout, "dropout")
    if s_aux is None and getattr(module, "sinks", None) is not None:
        raise ValueError(
            f'attn_implementation "multihead": {type(module).__name__} has sinks and passes no s_aux; it must')
    _check_devices(query=query, key=key, value=value, attention_mask=attention_mask, s_aux=s_aux,
                   position_bias=position_bias)
    cached = isinstance(key, CachedStates) and isinstance(value, CachedStates) and query.dtype == key.dtype
    refuse_tangents(query, s_aux, position_bias, None if isinstance(attention_mask, MaskOfRanges) else attention_mask)
    if not cached:
        refuse_tangents(key, value)
        query, key, value = autocast(query, key, value)
    added = None
    if attention_mask is None:
        options = _without_mask(module, query, key, is_causal, sliding_window)
    else:
        options, added = _mask_options(attention_mask, query, key)
    options = dict(options, scale=scaling, softcap=softcap or 0.0)
    if position_bias is not None:
        added = position_bias if added is None else position_bias + added
    options.update({name: option for name, option in _learned(added, s_aux).items() if option is not None})
    if dropout:
        options.update(dropout_option(dropout, draw_seed("cpu")))
    weights = _weights_asked_for(named)
    if cached:
        out = _attend_cached(module, query, key, attention_mask, options, weights)
        if out is not None:
            return out, None
        key, value = key.elements(), value.elements()
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad
                                       for tensor in (query, key, value, added, s_aux)):
        return _Differentiable.apply(lambda: _run(module, query, key, value, options, weights), options, query, key, value,
                                     added, s_aux)
    out, _, found = _run(module, query, key, value, options, weights)
    return out, found

# SPDX-License-Identifier: Apache-2.0
"""MultiHeadAttention: the layer with weights of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict

from . import _core
from ._statistics import Statistics, query_offset_of
from ._types import Array, AttentionOptions, DType, Integers, Numbers, StatisticsAsked, Weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

Norm = Literal["none", "rms", "rms_plus_1", "layer"]


@dataclass(frozen=True)
class Extents:
    """The extents of a layer. extra_keys: at the end of every sequence, of bias_k and add_zero_attn."""

    dtype: DType
    model_dim: int
    kdim: int
    vdim: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    out_dim: int
    extra_keys: int


class Spec(TypedDict, total=False):
    """What the weights of a layer do not say by their extents; MultiHeadAttention documents each."""

    kv_heads: int | None
    value_dim: int | None
    scale: float | None
    q_norm_kind: Norm
    k_norm_kind: Norm
    q_norm_eps: float
    k_norm_eps: float
    rotary: Literal["half_split", "interleaved"] | None
    rotary_dim: int | None
    rotary_theta: float
    rotary_scaling: Literal["default", "linear", "llama3"] | None
    rotary_factor: float
    rotary_low_freq_factor: float
    rotary_high_freq_factor: float
    rotary_original_max_position_embeddings: int
    max_positions: int
    add_zero_attn: bool


class MultiHeadAttention:
    """Multi-head attention with its weights, packed once and called any number of times, from any number of threads.

    output = concat_h(gate_h head_h) out + out_bias,  head_h = attention(rotary(norm(query q_h + q_bias_h)), .., value v_h)

    Weights, all of one type (float32, float64, bfloat16, float16), in order "in_out" (y = x W); with "out_in" the same
    matrices transposed, as torch.nn.Linear has them. The order must be named. Either q, k and v, or qkv.
      q (model_dim, heads * head_dim)   k (kdim, kv_heads * head_dim)   v (vdim, kv_heads * value_dim)
      qkv (model_dim, heads * head_dim + kv_heads * head_dim + kv_heads * value_dim), fused_order "blocks" or "groups"
      out (heads * value_dim, out_dim)
      q_bias, k_bias, v_bias, qkv_bias, out_bias   one element an output
      bias_k (kv_heads * head_dim), bias_v (kv_heads * value_dim)   a learned key and value at the end of every sequence
      q_norm, k_norm, q_norm_bias, k_norm_bias (head_dim)
    They are copied: later changes of the arrays do not reach the layer. It never changes: copies are the layer itself, and
    it is not pickled.

    What they do not say:
      heads, kv_heads (heads), value_dim (of qkv: head_dim), scale (1 / sqrt(head_dim)), add_zero_attn
      q_norm_kind, k_norm_kind   "none", "rms", "rms_plus_1" or "layer", with q_norm_eps, k_norm_eps (1e-6)
      rotary   None, "half_split" or "interleaved", with rotary_dim (head_dim), rotary_theta (10000), rotary_scaling
               ("default", "linear", "llama3"), rotary_factor, rotary_low_freq_factor, rotary_high_freq_factor,
               rotary_original_max_position_embeddings, max_positions (4096)

    Raises TypeError (element types) and ValueError (shapes, options).
    """

    __slots__ = ("_layer",)
    _layer: _core.Layer

    def __init__(self, heads: int, *, order: Literal["in_out", "out_in"], out: Array, q: Array | None = None,
                 k: Array | None = None, v: Array | None = None, qkv: Array | None = None, q_bias: Array | None = None,
                 k_bias: Array | None = None, v_bias: Array | None = None, qkv_bias: Array | None = None,
                 out_bias: Array | None = None, bias_k: Array | None = None, bias_v: Array | None = None,
                 q_norm: Array | None = None, k_norm: Array | None = None, q_norm_bias: Array | None = None,
                 k_norm_bias: Array | None = None, fused_order: Literal["blocks", "groups"] = "blocks",
                 **spec: Unpack[Spec]) -> None:
        weights = {"q": q, "k": k, "v": v, "qkv": qkv, "out": out, "q_bias": q_bias, "k_bias": k_bias, "v_bias": v_bias,
                   "qkv_bias": qkv_bias, "out_bias": out_bias, "bias_k": bias_k, "bias_v": bias_v, "q_norm": q_norm,
                   "k_norm": k_norm, "q_norm_bias": q_norm_bias, "k_norm_bias": k_norm_bias}
        named = {"heads": heads, "order": order, "fused_order": fused_order, **spec}
        self._layer = _core.Layer.create(named, weights)

    @classmethod
    def from_tensors(cls, layout: str, tensors: Mapping[str, Array], *, heads: int, prefix: str = "",
                     **spec: Unpack[Spec]) -> MultiHeadAttention:
        """The layer that the tensors of a checkpoint describe, by the names of a layout: "torch", "gpt2", "llama" ..

        docs/layer.md has the names of each layout; an unknown one is a ValueError that lists them. Tensors whose names do
        not begin with prefix are not read; one that is missing, left over or of another shape is a ValueError. The layout
        fixes orders and kinds of norms; spec says what tensors do not.
        """
        made = cls.__new__(cls)
        made._layer = _core.Layer.load(layout, dict(tensors), prefix, {"heads": heads, **spec})
        return made

    def __copy__(self) -> MultiHeadAttention:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> MultiHeadAttention:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("MultiHeadAttention: a layer cannot be pickled; pass its weights on and make it there")

    @property
    def extents(self) -> Extents:
        """The extents of the layer, and the type of its weights."""
        return Extents(**self._layer.extents)

    def __call__(self, query: Array, key: Array | None = None, value: Array | None = None, *,
                 q_positions: Integers | None = None, k_positions: Integers | None = None, gates: Numbers | None = None,
                 return_lse: bool = False, return_weights: Weights = None, return_heads: bool = False,
                 return_norms: bool = False, return_statistics: StatisticsAsked = None, out: Array | None = None,
                 **options: Unpack[AttentionOptions]) -> Any:
        """The output; with requests a tuple (output, lse, weights, heads, norms, statistics) of those that were asked for.

        query (batch, q_len, model_dim)   key (batch, kv_len, kdim)   value (batch, kv_len, vdim)
        output (batch, q_len, out_dim)    all of the weights' type; all without the axis of the batch: a batch of one
        key None: self-attention. value None: the key.
        q_positions, k_positions   (batch, length) of tokens, with rotary; 0, 1, 2 .. where they are left out
        gates          (heads) multiplied onto the heads' outputs before out
        return_lse     (batch, heads, q_len)
        return_weights as attention() has it; kv_len counts the extra keys, which come last
        return_heads   (batch, heads, q_len, value_dim) before gates and out
        return_norms   (batch, heads, kv_len), extra keys last: |gate| x the length of a key's value after its head's rows
                       of the out weight; one head's weights times them are its norm-weighted ones
        return_statistics  as attention() has it, not with extra keys; the layer computes the norms of norm_weighted
        options        those of attention() but layout; masks and lists do not count the extra keys
        Raises TypeError, ValueError and MemoryError as attention() does; then nothing was written.
        """
        wants = (out, return_lse, return_weights, return_heads, q_positions, k_positions, gates, return_statistics,
                 return_norms)
        results = self._layer.forward((query, key, value), wants, options)
        if return_statistics is None or return_statistics is False:
            return results
        *others, found = results
        return (*others, Statistics(found, query_offset_of(options, *found["extents"][2:])))

    def __repr__(self) -> str:
        extents = self.extents
        return (f"MultiHeadAttention(heads={extents.heads}, kv_heads={extents.kv_heads}, model_dim={extents.model_dim}, "
                f"head_dim={extents.head_dim}, dtype={extents.dtype!r})")

# SPDX-License-Identifier: Apache-2.0
"""A drop-in for torch.nn.MultiheadAttention whose attention is computed by multihead."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .._flash import probability
from . import _check, _operator
from ._gradient import draw_seed

_NAME = "MultiheadAttention"


class MultiheadAttention(torch.nn.MultiheadAttention):
    """torch.nn.MultiheadAttention on the CPU: its constructor, parameters, state_dict, masks and results.

    In both masks True means blocked; a floating mask is added to the scores. A query that sees no key gets zeros, in the
    weights too. The weights are those before dropout. PyTorch's own fast path is never taken, so this module also computes
    inside torch.nn.TransformerEncoderLayer. torch.get_num_threads() threads compute."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
                 add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device,
                         dtype)
        self._leave_fast_path()

    def _leave_fast_path(self):
        # What torch.nn.TransformerEncoderLayer and TransformerEncoder ask before they compute attention by themselves
        # from this module's parameters. Whether the weights are one says in_proj_weight.
        self._qkv_same_embed_dim = False

    def _reset_parameters(self):
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        self._leave_fast_path()

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """(output, weights), as torch.nn.MultiheadAttention.

          query (L, N, embed_dim)   key (S, N, kdim)   value (S, N, vdim)   output (L, N, embed_dim)
          with batch_first (N, L, embed_dim) and so on; unbatched (L, embed_dim) and so on
          key_padding_mask (N, S)   attn_mask (L, S) or (N * num_heads, L, S)
          weights: None without need_weights; (N, L, S), or (N, num_heads, L, S) without average_attn_weights

        is_causal is a hint that attn_mask is the causal mask, and needs it; without key_padding_mask and need_weights
        attn_mask is then not read."""
        if isinstance(query, Tensor) and query.is_nested:
            return self._forward_nested(query, key, value, key_padding_mask, need_weights, attn_mask,
                                        average_attn_weights)
        self._check_inputs(query, key, value)
        if is_causal and attn_mask is None:
            raise ValueError(f"{_NAME}: is_causal is True without attn_mask; it is a hint that attn_mask is causal, give "
                             f"that mask too")
        batched = query.dim() == 3
        layout = "bshd" if self.batch_first or not batched else "sbhd"
        if not batched:
            query, key, value = _with_batch(query, key, value)
        q, k, v = self._project(query, key, value, 1 if layout == "bshd" else 0)
        causal = bool(is_causal) and key_padding_mask is None and not need_weights
        masks = self._masks(q, k, layout, key_padding_mask, None if causal else attn_mask, batched)
        dropout_p = probability(_NAME, self.dropout, "dropout") if self.training else 0.0
        seed = draw_seed(q.device) if dropout_p else None
        arguments = (q, k, v, *masks, seed, layout, causal, None, dropout_p)
        weights = None
        if need_weights:
            out, _, weights = _operator.attention_weights(*arguments, bool(average_attn_weights))
        else:
            out, _ = _operator.attention(*arguments)
        out = functional.linear(out.flatten(-2), self.out_proj.weight, self.out_proj.bias)
        if batched:
            return out, weights
        return out.squeeze(0), weights if weights is None else weights.squeeze(0)

    def _check_inputs(self, query, key, value):
        for name, tensor, width in (("query", query, self.embed_dim), ("key", key, self.kdim),
                                    ("value", value, self.vdim)):
            _check.tensor(_NAME, name, tensor)
            if query.dim() not in (2, 3) or tensor.dim() != query.dim():
                raise ValueError(f"{_NAME}: {name} has {tensor.dim()} axes, query {query.dim()}; all must have 3, or 2 "
                                 f"without a batch")
            if tensor.shape[-1] != width:
                raise ValueError(f"{_NAME}: {name} has {tensor.shape[-1]} features; the module was made for {width}")
            _check.same_device(_NAME, {"the module's parameters": self.out_proj.weight, name: tensor})
            if tensor.dtype != self.out_proj.weight.dtype and not torch.is_autocast_enabled("cpu"):
                raise TypeError(f"{_NAME}: {name} is {tensor.dtype}, the module's parameters are "
                                f"{self.out_proj.weight.dtype}; they must be the same")
        batch = 0 if self.batch_first else 1
        if key.shape[:-1] != value.shape[:-1] or (query.dim() == 3 and query.shape[batch] != key.shape[batch]):
            raise ValueError(f"{_NAME}: query, key and value have shapes {tuple(query.shape)}, {tuple(key.shape)} and "
                             f"{tuple(value.shape)}; key and value must agree in length, and all in batch")

    def _project(self, query, key, value, length):
        """q, k and v as (.., heads, head_dim), with the keys and values that the module adds along the axis of length."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            biases = (None, None, None) if bias is None else bias.chunk(3)
            q, k, v = (functional.linear(*each) for each in zip((query, key, value), weights, biases))
        elif query is key and key is value:
            q, k, v = functional.linear(query, weight, bias).chunk(3, -1)
        elif key is value:
            split = [self.embed_dim, 2 * self.embed_dim]
            (w_q, w_kv), (b_q, b_kv) = weight.split(split), (None, None) if bias is None else bias.split(split)
            q = functional.linear(query, w_q, b_q)
            k, v = functional.linear(key, w_kv, b_kv).chunk(2, -1)
        else:
            biases = (None, None, None) if bias is None else bias.chunk(3)
            q, k, v = (functional.linear(*each) for each in zip((query, key, value), weight.chunk(3), biases))
        return (self._by_head(q), self._lengthened(k, self.bias_k, length),
                self._lengthened(v, self.bias_v, length))

    def _masks(self, q, k, layout, key_padding_mask, attn_mask, batched):
        """keep_mask, drop_mask and bias of the operator: each mask as it is, joined only where both are floating."""
        batch, _, q_len, kv_len = _operator.extents(q, k, layout)
        added = self._added()
        given = []
        for name, mask, shapes in (
                ("attn_mask", attn_mask, [(q_len, kv_len - added), (batch * self.num_heads, q_len, kv_len - added)]),
                ("key_padding_mask", key_padding_mask, [(batch, kv_len - added) if batched else (kv_len - added,)])):
            if mask is None:
                continue
            _check.mask(_NAME, name, mask, q.dtype)
            _check.same_device(_NAME, {"query": q, name: mask})
            if tuple(mask.shape) not in shapes:
                raise ValueError(f"{_NAME}: {name} has shape {tuple(mask.shape)}; it must be "
                                 f"{' or '.join(map(str, shapes))}")
            mask = functional.pad(mask, (0, added)) if added else mask
            given.append(mask.reshape(batch, 1, 1, kv_len) if name == "key_padding_mask" else
                         mask[None, None] if mask.dim() == 2 else mask.unflatten(0, (batch, self.num_heads)))
        blocked = [mask for mask in given if mask.dtype == torch.bool]
        biases = [mask.to(torch.float64) if q.dtype == torch.float64 else mask for mask in given
                  if mask.dtype != torch.bool]
        keep_mask = ~blocked[1] if len(blocked) == 2 else None
        return keep_mask, blocked[0] if blocked else None, sum(biases[1:], biases[0]) if biases else None

    def _added(self):
        """How many keys the module adds after the caller's, seen by every query: bias_k, then zeros."""
        return int(self.bias_k is not None) + int(self.add_zero_attn)

    def _lengthened(self, tensor, learned, length):
        """A projected key or value with its axis of heads, and at the end of each sequence what the module adds."""
        if not self._added():
            return self._by_head(tensor)
        parts, shape = [tensor], list(tensor.shape)
        shape[length] = 1
        if learned is not None:
            parts.append(learned.to(tensor.dtype).expand(shape))
        if self.add_zero_attn:
            parts.append(tensor.new_zeros(shape))
        return self._by_head(torch.cat(parts, length))

    def _by_head(self, tensor):
        return tensor.view(*tensor.shape[:-1], self.num_heads, self.head_dim)

    def _forward_nested(self, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights):
        """Self-attention of a nested tensor, whose lengths stand for key_padding_mask."""
        if (query is not key or key is not value or query.layout != torch.strided or not self.batch_first
                or key_padding_mask is not None or attn_mask is not None):
            raise ValueError(f"{_NAME}: query is a nested tensor; it must be of layout torch.strided, key and value as "
                             f"well, the module batch_first, and neither mask given")
        lengths = torch.tensor([len(part) for part in query.unbind()], device=query.device)
        padded = query.to_padded_tensor(0.0)
        padding = torch.arange(padded.shape[1], device=query.device) >= lengths[:, None]
        out, weights = self.forward(padded, padded, padded, padding, need_weights, None, average_attn_weights)
        return torch.nested.as_nested_tensor([part[:length] for part, length in zip(out, lengths.tolist())]), weights


def _with_batch(query, key, value):
    """The same with a batch of one. Tensors that are one object stay one."""
    q = query.unsqueeze(0)
    k = q if key is query else key.unsqueeze(0)
    v = k if value is key else value.unsqueeze(0)
    return q, k, v

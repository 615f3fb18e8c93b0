# SPDX-License-Identifier: Apache-2.0
"""Attention as a plain formula in PyTorch's float64, which PyTorch differentiates; and the words of dropout."""

import numpy as np
import reference
import torch


def philox(counters, seed):
    """Philox4x32-10 (Salmon et al. 2011) of counters (.., 4) of 32 bits: words (.., 4)."""
    words = [counters[..., i].astype(np.uint64) for i in range(4)]
    key, low = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * words[0], np.uint64(0xCD9E8D57) * words[2]
        words = [(b >> np.uint64(32)) ^ words[1] ^ key[0], b & low, (a >> np.uint64(32)) ^ words[3] ^ key[1], a & low]
        key = [(key[0] + np.uint64(0x9E3779B9)) & low, (key[1] + np.uint64(0xBB67AE85)) & low]
    return np.stack(words, -1).astype(np.uint32)


def dropped(shape, probability, seed, stream=0):
    """Which weights (batch, heads, q_len, kv_len) dropout takes away."""
    batch, heads, q_len, kv_len = shape
    counters = np.zeros((batch * heads, q_len, -(-kv_len // 4), 4), np.uint32)
    counters[..., 0] = np.arange(counters.shape[2])
    counters[..., 1] = np.arange(q_len)[:, None]
    counters[..., 2] = np.arange(batch * heads)[:, None, None]
    counters[..., 3] = stream
    words = philox(counters, seed).reshape(batch, heads, q_len, -1)[..., :kv_len]
    return torch.from_numpy(words < np.uint32(probability * 2.0 ** 32))


def _placed(batch, q_len, kv_len, options):
    """Positions of queries and keys (2, batch, q_len, kv_len), and whether the ranges let a key be seen."""
    found = [reference.positions(b, q_len, kv_len, options) for b in range(batch)]
    return torch.from_numpy(np.stack([at for at, _ in found], 1)), torch.from_numpy(np.stack([seen for _, seen in found]))


def _seen(shape, ranged, options):
    seen = ranged[:, None].expand(shape)
    for name, right in (("keep_mask", True), ("drop_mask", False)):
        if options.get(name) is not None:
            seen = seen & (options[name].expand(shape) == right)
    return seen


def _relative(table, at):
    """(batch, heads, q_len, kv_len) of T5's table."""
    values, bidirectional, far = table if isinstance(table, tuple) else (table, True, 128)
    buckets = np.vectorize(lambda p, j: reference.bucket(int(j - p), len(values), bidirectional, far))(*at.numpy())
    return values.double()[torch.from_numpy(buckets)].permute(0, 3, 1, 2)


def attention(q, k, v, *, drop=None, **options):
    """(out, lse, weights) of (batch, heads, length, width), with a history; drop: which weights dropout takes away.

    Options are those of multihead.attention, with tensors for numbers that are learned; dropout is (probability, ..)."""
    q, k, v = (tensor.double() for tensor in (q, k, v))
    batch, heads, q_len, head_dim = q.shape
    k, v = (tensor.repeat_interleave(heads // k.shape[1], 1) for tensor in (k, v))
    shape = (batch, heads, q_len, k.shape[2])
    at, ranged = _placed(batch, q_len, k.shape[2], options)
    seen = _seen(shape, ranged, options)
    scores = q @ k.mT * (head_dim ** -0.5 if options.get("scale") is None else options["scale"])
    if options.get("softcap"):
        scores = options["softcap"] * torch.tanh(scores / options["softcap"])
    if options.get("bias") is not None:
        scores = scores + options["bias"].double()
    if options.get("alibi_slopes") is not None:
        scores = scores - options["alibi_slopes"].double()[:, None, None] * (at[0] - at[1]).abs()[:, None]
    if options.get("relative_bias") is not None:
        scores = scores + _relative(options["relative_bias"], at)
    exps = torch.exp(scores.masked_fill(~seen, -torch.inf))
    total = exps.sum(-1)
    if options.get("sinks") is not None:
        total = total + torch.exp(options["sinks"].double())[:, None]
    some = total > 0
    lse = torch.where(some, torch.log(torch.where(some, total, 1.0)), -torch.inf)
    weights = exps / torch.where(some, total, 1.0)[..., None]
    kept = weights if drop is None else weights.masked_fill(drop, 0.0) / (1 - options["dropout"][0])
    return kept @ v, lse, weights

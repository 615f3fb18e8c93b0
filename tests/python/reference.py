# SPDX-License-Identifier: Apache-2.0
"""Attention in float64 NumPy, row by row, from the definition; and the arrays that its tests draw."""

import math

import numpy as np


def bucket(distance, buckets, bidirectional, max_distance):
    """Of T5 (Raffel et al. 2020): distance = key position - query position."""
    base = 0
    if bidirectional:
        buckets //= 2
        base = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return base + distance
    far = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (buckets - exact))
    return base + min(far, buckets - 1)


def runs(ids):
    """(begin, end) of each id's run."""
    return {int(i): (list(ids).index(i), len(ids) - list(ids)[::-1].index(i)) for i in ids}


def sequences(b, q_len, kv_len, options):
    """(first query, end, first key, end, number of the sequence) of each sequence of a batch entry."""
    if options.get("cu_seqlens") is not None:
        starts = options["cu_seqlens"]
        q_starts, k_starts = starts if isinstance(starts, tuple) else (starts, starts)
        return [(*q, *k, s) for s, (q, k) in enumerate(zip(zip(q_starts, q_starts[1:]), zip(k_starts, k_starts[1:])))]
    if options.get("segments") is not None:
        ids = options["segments"]
        q_ids, k_ids = (np.atleast_2d(x)[b] for x in (ids if isinstance(ids, tuple) else (ids, ids)))
        keys = runs(k_ids)
        return [(*q, *keys.get(i, (0, 0)), b) for i, q in runs(q_ids).items()]
    return [(0, q_len, 0, kv_len, b)]


def positions(b, q_len, kv_len, options):
    """For each (query, key): the query's position and the key's within their sequence, and whether the ranges let it see."""
    seen = np.zeros((q_len, kv_len), bool)
    at = np.zeros((2, q_len, kv_len), int)
    first = options.get("window_first", 0)
    left, right = (-1 if side is None else side for side in (options.get("window") or (None, None)))
    for q0, q1, k0, k1, s in sequences(b, q_len, kv_len, options):
        valid = k1 - k0
        if options.get("lengths") is not None:
            packed = options.get("cu_seqlens") is not None
            valid = int(options["lengths"][s]) if packed else min(max(int(options["lengths"][b]) - k0, 0), valid)
        offset = options.get("query_offset", 0)
        offset = offset if isinstance(offset, int) else offset[s]
        if options.get("causal") == "bottom_right":
            offset = valid - (q1 - q0)
        prefix = options["prefixes"][s] if options.get("prefixes") is not None else 0
        for i in range(q0, q1):
            for j in range(k0, k0 + valid):
                p, key = i - q0 + offset, j - k0
                at[:, i, j] = p, key
                see = not options.get("causal") or key <= p or key < prefix
                seen[i, j] = see and (left < 0 or key >= p - left or key < first) and (right < 0 or key <= p + right)
    return at, seen


def terms(h, at, options):
    """What is added to the scores of a head."""
    added = np.zeros(at.shape[1:])
    if options.get("alibi_slopes") is not None:
        added -= options["alibi_slopes"][h] * abs(at[0] - at[1])
    table = options.get("relative_bias")
    if table is not None:
        values, bidirectional, far = (table, True, 128) if isinstance(table, np.ndarray) else tuple(table)
        buckets = np.vectorize(lambda p, j: bucket(int(j - p), len(values), bidirectional, far))(at[0], at[1])
        added += np.asarray(values, np.float64)[buckets, h]
    return added


def philox(counter, key):
    """Four words of Philox4x32-10 (Salmon et al. 2011), in whole numbers."""
    c, (k0, k1) = list(counter), (key & 0xFFFFFFFF, key >> 32)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k1, a & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def factors(shape, options):
    """What dropout multiplies each weight with: 0 or 1 / (1 - probability)."""
    probability = float(options.get("dropout") or 0)
    found = np.ones(shape)
    if probability:
        _, heads, _, kv_len = shape
        for b, h, i in np.ndindex(*shape[:3]):
            for quad in range(0, kv_len, 4):
                words = philox((quad // 4, i, b * heads + h, options.get("dropout_stream", 0)), int(options["dropout_seed"]))
                for j, word in zip(range(quad, kv_len), words):
                    found[b, h, i, j] = 0 if word < int(probability * 2 ** 32) else 1 / (1 - probability)
    return found


def attention(q, k, v, **options):
    """(out, lse, weights) of (batch, heads, length, width), in float64."""
    q, k, v = (np.asarray(x).astype(np.float64) for x in (q, k, v))
    batch, heads, q_len, head_dim = q.shape
    kv_len = k.shape[2]
    whole = (batch, heads, q_len, kv_len)
    dense = np.zeros(whole)
    if options.get("bias") is not None:
        dense = dense + np.asarray(options["bias"]).astype(np.float64)
    visible = np.ones(whole, bool)
    if options.get("keep_mask") is not None:
        visible = visible & np.asarray(options["keep_mask"], bool)
    if options.get("drop_mask") is not None:
        visible = visible & ~np.asarray(options["drop_mask"], bool)
    scale = options["scale"] if options.get("scale") is not None else 1 / math.sqrt(head_dim)
    kept = factors(whole, options)
    out, lse, weights = np.zeros((*q.shape[:3], v.shape[3])), np.full(q.shape[:3], -np.inf), np.zeros(whole)
    for b in range(batch):
        at, ranged = positions(b, q_len, kv_len, options)
        for h in range(heads):
            g = h // (heads // k.shape[1])
            scores = q[b, h] @ k[b, g].T * scale
            if options.get("softcap"):
                scores = options["softcap"] * np.tanh(scores / options["softcap"])
            scores = scores + dense[b, h] + terms(h, at, options)
            for i in range(q_len):
                see = ranged[i] & visible[b, h, i]
                total = np.exp(scores[i][see]).sum()
                if options.get("sinks") is not None:
                    total += math.exp(options["sinks"][h])
                if total > 0:
                    lse[b, h, i] = math.log(total)
                    weights[b, h, i][see] = np.exp(scores[i][see]) / total
            out[b, h] = (weights[b, h] * kept[b, h]) @ v[b, g]
    return out, lse, weights


def draw(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)

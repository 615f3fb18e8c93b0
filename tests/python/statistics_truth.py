# SPDX-License-Identifier: Apache-2.0
"""Statistics in float64 NumPy from dense weights and their definitions, as statistics.hpp has them."""

import numpy as np
import reference


def entropy(weights):
    terms = np.zeros_like(weights)
    np.multiply(-weights, np.log(weights, out=np.zeros_like(weights), where=weights > 0), out=terms, where=weights > 0)
    return terms.sum(-1)


def binned(weights, bin):
    """(batch, heads, bins of queries, bins of keys): the mean over a bin's rows of what they give to a bin's keys."""
    q_len, kv_len = weights.shape[2:]
    by_keys = np.stack([weights[..., at:at + bin].sum(-1) for at in range(0, kv_len, bin)], -1)
    return np.stack([by_keys[:, :, at:at + bin].mean(2) for at in range(0, q_len, bin)], 2)


def positions(weights, options):
    """(batch, q_len, kv_len) each: the query's position and the key's place in their sequence."""
    batch, _, q_len, kv_len = weights.shape
    found = [reference.positions(b, q_len, kv_len, options)[0] for b in range(batch)]
    return np.stack([at[0] for at in found]), np.stack([at[1] for at in found])


def pattern_masses(weights, at, keys, tokens):
    """(duplicate_mass, induction_mass)."""
    q_tokens, kv_tokens = tokens
    own = kv_tokens[:, None, :] == q_tokens[:, :, None]
    before = np.zeros_like(own)
    before[:, :, 1:] = own[:, :, :-1]
    duplicate = own & (keys != at)
    induction = before & (keys > 0) & (keys - 1 != at)
    return (weights * duplicate[:, None]).sum(-1), (weights * induction[:, None]).sum(-1)


def statistics(weights, options, *, offsets=(-1, 0, 1), keys=(0,), masks=(), tokens=None, top=1, bin=0, received=False):
    """{name: array} of weights (batch, heads, q_len, kv_len); masks: one (batch, kv_len) a class."""
    at, places = positions(weights, options)
    total = weights.sum(-1)
    empty = total == 0
    with np.errstate(invalid="ignore"):
        far = (weights * abs(at - places)[:, None]).sum(-1) / total
    order = np.argsort(-weights, axis=-1, kind="stable")[..., :top]
    top_weights = np.take_along_axis(weights, order, -1)
    found = {
        "visible": (weights > 0).sum(-1), "entropy": np.where(empty, np.nan, entropy(weights)),
        "sum_squares": (weights ** 2).sum(-1), "distance": far,
        "top_keys": np.where(top_weights > 0, order, -1), "top_weights": top_weights}
    if offsets:
        found["offset_mass"] = np.stack([(weights * (places == at + step)[:, None]).sum(-1) for step in offsets], -1)
    if keys:
        found["key_mass"] = np.stack([(weights * (places == key)[:, None]).sum(-1) for key in keys], -1)
    if masks:
        found["class_mass"] = np.stack([(weights * mask[:, None, None]).sum(-1) for mask in masks], -1)
    if tokens is not None:
        found["duplicate_mass"], found["induction_mass"] = pattern_masses(weights, at, places, tokens)
    if received:
        found["received"] = weights.sum(2)
    if bin:
        found["map"] = binned(weights, bin)
    return found

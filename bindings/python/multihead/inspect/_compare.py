# SPDX-License-Identifier: Apache-2.0
"""Two recordings of one model beside each other, head by head."""

from __future__ import annotations

from typing import Any, NamedTuple


class Difference(NamedTuple):
    """How one statistic of one head differs: its mean over the rows in each recording, and of the rows' differences the
    mean and the largest amount. statistic "top_key": the share of rows with the same top key, in place of means."""

    step: int
    layer: int
    module: str
    head: int
    statistic: str
    first: float
    second: float
    mean: float
    largest: float


def _columns(layer: Any) -> dict[str, Any]:
    """Each statistic of rows as float64 (batch, heads, q_len) by name."""
    import numpy

    batch, heads, q_len, _ = layer.extents
    found = {}
    for name, labels in (("entropy", None), ("sum_squares", None), ("distance", None), ("duplicate_mass", None),
                         ("induction_mass", None), ("offset_mass", layer.offsets), ("key_mass", layer.keys),
                         ("class_mass", layer.classes)):
        array = getattr(layer, name)
        if array is None:
            continue
        array = numpy.asarray(array, numpy.float64).reshape(batch, heads, q_len, -1)
        for place in range(array.shape[-1]):
            found[name if labels is None else f"{name}[{labels[place]}]"] = array[..., place]
    if layer.top_weights is not None:
        found["largest"] = numpy.asarray(layer.top_weights, numpy.float64).reshape(batch, heads, q_len, -1)[..., 0]
    return found


def _counting(layer: Any) -> Any:
    """(batch, heads, q_len): the rows that see a key and count."""
    import numpy

    batch, heads, q_len, _ = layer.extents
    seeing = numpy.asarray(layer.visible).reshape(batch, heads, q_len) > 0
    if layer.rows is not None:
        seeing = seeing & (numpy.asarray(layer.rows).reshape(batch, 1, q_len) != 0)
    return seeing


def _of_head(named: tuple[int, int, str], head: int, values: dict[str, tuple[Any, Any]], same: Any) -> list[Difference]:
    rows = []
    for name, (first, second) in values.items():
        apart = abs(first - second)
        numbers = [float(x) for x in ((first.mean(), second.mean(), apart.mean(), apart.max()) if len(first) else [0.0] * 4)]
        rows.append(Difference(*named, head, name, *numbers))
    if same is not None and len(same):
        share = float(same.mean())
        rows.append(Difference(*named, head, "top_key", share, share, 1 - share, 0.0 if share == 1 else 1.0))
    return rows


def compare(first: list[Any], second: list[Any]) -> list[Difference]:
    """See Recording.compare."""
    import numpy

    if [layer.module for layer in first] != [layer.module for layer in second]:
        raise ValueError(f"compare: the recordings have {len(first)} and {len(second)} layers, of other modules or in another "
                         "order; they must be of one model")
    found = []
    for one, other in zip(first, second):
        if one.extents != other.extents:
            raise ValueError(f"compare: {one.module} has (batch, heads, q_len, kv_len) {one.extents} and {other.extents}; they "
                             "must be equal")
        columns, others = _columns(one), _columns(other)
        counting = _counting(one) & _counting(other)
        batch, heads, q_len, _ = one.extents
        keys = [None if layer.top_keys is None else numpy.asarray(layer.top_keys).reshape(batch, heads, q_len, -1)[..., 0]
                for layer in (one, other)]
        for head in range(heads):
            rows = counting[:, head]
            values = {name: (columns[name][:, head][rows], others[name][:, head][rows]) for name in columns if name in others}
            same = None if keys[0] is None or keys[1] is None else (keys[0] == keys[1])[:, head][rows]
            found += _of_head((one.step, one.layer, one.module), head, values, same)
    return found

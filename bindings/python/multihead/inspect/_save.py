# SPDX-License-Identifier: Apache-2.0
"""Heads as data: .json, .csv and .npz with the names that `multihead heads` writes (docs/formats.md, "The files of heads")."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import _core
from .._statistics import Statistics
from ._files import ending_of, write

ENDINGS = (".json", ".csv", ".npz")
_ROWS = ("visible", "entropy", "sum_squares", "distance", "offset_mass", "key_mass", "class_mass", "duplicate_mass",
         "induction_mass", "top_weights", "top_keys")
_SEVERAL = {"offset_mass": "offsets", "key_mass": "keys", "class_mass": "classes"}
_MEANS = ("entropy", "entropy_share", "largest", "sum_squares", "distance", "duplicate_mass", "induction_mass",
          "top_offset_share")
_LABELS = ("previous", "next", "self", "sink", "separator", "broad", "local", "duplicate", "induction", "positional", "mixed")


class Call(NamedTuple):
    """One attention: its statistics, its place, and of a recorded model where it stood and what it read."""

    statistics: Statistics
    layer: int
    said: dict[str, Any]  # step, module, kind; empty: it is not recorded
    weights: Any = None
    ids: Any = None


class Heads(NamedTuple):
    """What is written: calls in their order, and the tokens of the text, None where they are not known."""

    calls: Sequence[Call]
    tokens: Sequence[str] | None


def _rows_of(statistics: Statistics) -> dict[str, Any]:
    """Each statistic of rows (batch, heads, q_len, ..), and received (batch, heads, kv_len), by name."""
    import numpy

    found = {}
    for name in (*_ROWS, "received"):
        array = getattr(statistics, name)
        if array is not None:
            array = numpy.asarray(array)
            found[name] = array.reshape(*statistics.extents[:2], *array.shape[-2 if _is_list(name) else -1:])
    return found


def _is_list(name: str) -> bool:
    return name in _SEVERAL or name in ("top_keys", "top_weights")


def _both(statistics: Statistics) -> list[tuple[str, Statistics]]:
    """(what stands before its names, statistics) of the weights, and of the weights times norms."""
    weighted = statistics.norm_weighted
    return [("", statistics)] + ([] if weighted is None else [("norm_weighted_", weighted)])


def _shortest(array: Any) -> list[Any]:
    """Nested lists of numbers with as few digits as read back as the same; None for what is no number."""
    import numpy

    if array.dtype == numpy.float32:
        array = array.astype(str).astype(numpy.float64)
    whole: list[Any] = array.tolist()
    return whole if numpy.isfinite(array).all() else [_finite(one) for one in whole]


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _suffixes(statistics: Statistics, name: str, width: int) -> list[str]:
    several = getattr(statistics, _SEVERAL[name]) if name in _SEVERAL else range(width)
    return [f"_{one}" for one in several]


# ---- JSON

def _summary(statistics: Statistics, head: int) -> dict[str, Any]:
    found = statistics.summary(head)
    numbers = {"rows": found.rows, **{name: _finite(getattr(found, name)) for name in _MEANS}}
    return {**numbers, **{name: _finite(list(getattr(found, name).values())) for name in _SEVERAL}, "top_offset": found.top_offset}


def _json_rows(rows: dict[str, Any], head: int) -> dict[str, Any]:
    """A list for each statistic; of several sequences a list of these."""
    return {name: _shortest(array[0, head] if len(array) == 1 else array[:, head]) for name, array in rows.items()}


def _lists(statistics: Statistics) -> dict[str, Any]:
    return {"offsets": list(statistics.offsets), "keys": list(statistics.keys), "classes": list(statistics.classes)}


def _ids(heads: Heads) -> Any:
    for call in heads.calls:
        if call.ids is not None:
            return call.ids[0].tolist() if len(call.ids) == 1 else call.ids.tolist()
    return None


def _json(heads: Heads) -> bytes:
    usual = _lists(heads.calls[0].statistics)
    found = []
    for call in heads.calls:
        both = [(prefix, one, _rows_of(one)) for prefix, one in _both(call.statistics)]
        lists = _lists(call.statistics)
        for head in range(call.statistics.heads):
            made = {**call.said, "layer": call.layer, "head": head, **({} if lists == usual else lists)}
            for prefix, one, rows in both:
                numbers = {"summary": _summary(one, head), "rows": _json_rows(rows, head)}
                if prefix:
                    made["norm_weighted"] = numbers
                else:
                    labels = [{**label._asdict(), "value": _finite(label.value), "threshold": _finite(label.threshold)}
                              for label in one.labels(head)]
                    made.update(summary=numbers["summary"], labels=labels, rows=numbers["rows"])
            found.append(made)
    top = {"multihead": _core.__version__, "tokens": None if heads.tokens is None else list(heads.tokens), "ids": _ids(heads),
           **usual}
    lines = ",\n".join(json.dumps(made, ensure_ascii=False, allow_nan=False) for made in found)
    return f'{json.dumps(top, ensure_ascii=False)[:-1]},\n"heads": [\n{lines}]}}\n'.encode("utf-8", "backslashreplace")


# ---- CSV

def _csv_columns(statistics: Statistics, rows: dict[str, Any]) -> dict[str, list[str]]:
    """The columns of each statistic; none of what keys receive where they are not the rows."""
    columns = {}
    for name, array in rows.items():
        if name != "received" or statistics.extents[2] == statistics.extents[3]:
            columns[name] = [name + one for one in _suffixes(statistics, name, array.shape[-1])] if _is_list(name) else [name]
    return columns


def _csv_means(statistics: Statistics, columns: dict[str, list[str]], head: int) -> dict[str, Any]:
    summary, found = statistics.summary(head), {}
    for name, names in columns.items():
        if name == "top_weights":
            found[names[0]] = summary.largest
        elif name in _SEVERAL:
            found.update(zip(names, getattr(summary, name).values()))
        elif name in _MEANS:
            found[names[0]] = getattr(summary, name)
    return {name: "" if math.isnan(value) else value for name, value in found.items()}


def _csv_lines(call: Call, tokens: Sequence[str] | None) -> list[dict[str, Any]]:
    batch, heads, q_len, _ = call.statistics.extents
    named = tokens if tokens is not None and len(tokens) == q_len and batch == 1 else [""] * q_len
    both = []
    for prefix, one in _both(call.statistics):
        rows = _rows_of(one)
        both.append((prefix, one, _csv_columns(one, rows), {name: _shortest(array) for name, array in rows.items()}))
    lines = []
    for head in range(heads):
        place = {**call.said, "layer": call.layer, "head": head}
        for entry in range(batch):
            for row in range(q_len):
                line = {**place, "row": row, "token": named[row], **({"sequence": entry} if call.said else {})}
                for prefix, _, columns, rows in both:
                    for name, names in columns.items():
                        value = rows[name][entry][head][row]
                        line.update(zip((prefix + one for one in names), value if _is_list(name) else [value]))
                lines.append(line)
        means = {**place, "labels": " ".join(label.name for label in call.statistics.labels(head))}
        for prefix, one, columns, _ in both:
            means.update((prefix + name, value) for name, value in _csv_means(one, columns, head).items())
        lines.append(means)
    return lines


def _csv(heads: Heads) -> bytes:
    lines = [line for call in heads.calls for line in _csv_lines(call, heads.tokens)]
    first = [name for name in ("step", "module", "kind", "sequence") if heads.calls[0].said]
    columns = list(dict.fromkeys([*first, "layer", "head", "row", "token", "labels", *(name for line in lines for name in line)]))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, restval="")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().encode("utf-8", "backslashreplace")


# ---- NPZ

def _text(lines: Sequence[str]) -> Any:
    """One text a line, as bytes."""
    import numpy

    return numpy.frombuffer("\n".join(lines).encode("utf-8", "backslashreplace"), numpy.uint8)


def _alike(call: Call) -> tuple[Any, ...]:
    """What calls must have in common to stand in the arrays of one group."""
    shapes = [(prefix, name, tuple(array.shape)) for prefix, one in _both(call.statistics) for name, array in one.arrays()]
    statistics = call.statistics
    return (statistics.extents, statistics.offsets, statistics.keys, statistics.classes, statistics.query_offset is None,
            call.weights is None, tuple(shapes))


def _npz_group(calls: list[Call]) -> dict[str, Any]:
    import numpy

    first = calls[0].statistics
    found: dict[str, Any] = {"offsets": numpy.array(first.offsets, numpy.int64), "keys": numpy.array(first.keys, numpy.int64),
                             "classes": _text(first.classes), "label_names": _text(_LABELS)}
    if calls[0].said:
        found.update({"layer": numpy.array([call.layer for call in calls], numpy.int64),
                      "step": numpy.array([call.said["step"] for call in calls], numpy.int64),
                      "module": _text([call.said["module"] for call in calls]),
                      "kind": _text([call.said["kind"] for call in calls])})
    names = [[{label.name for label in call.statistics.labels(head)} for head in range(first.heads)] for call in calls]
    found["labels"] = numpy.array([[[name in one for name in _LABELS] for one in layer] for layer in names], bool)
    for place, (prefix, one) in enumerate(_both(first)):
        parts = [_both(call.statistics)[place][1] for call in calls]
        rows = [_rows_of(part) for part in parts]
        for name in rows[0]:
            found[prefix + name] = _stacked([layer[name] for layer in rows])
        if one.map is not None:
            found[prefix + "map"] = _stacked([numpy.asarray(part.map).reshape(first.extents[0], first.heads, *one.map.shape[-2:])
                                              for part in parts])
        summaries = [[part.summary(head) for head in range(first.heads)] for part in parts]
        for name in _MEANS:
            values = [[getattr(summary, name) for summary in layer] for layer in summaries]
            found[f"{prefix}mean_{name}"] = numpy.array(values, numpy.float64)
        for name in _SEVERAL:
            several = [[list(getattr(summary, name).values()) for summary in layer] for layer in summaries]
            found[f"{prefix}mean_{name}"] = numpy.array(several, numpy.float64)
        if first.query_offset is not None:
            found[prefix + "top_offset"] = numpy.array([[summary.top_offset for summary in layer] for layer in summaries], numpy.int64)
    if calls[0].weights is not None:
        found["weights"] = _stacked([numpy.asarray(call.weights).reshape(first.extents) for call in calls])
    return found


def _stacked(arrays: list[Any]) -> Any:
    """(layers, heads, ..), of several sequences (layers, batch, heads, ..)."""
    import numpy

    return numpy.stack([array[0] if len(array) == 1 else array for array in arrays])


def _npz(heads: Heads) -> bytes:
    import numpy

    groups: dict[Any, list[Call]] = {}
    for call in heads.calls:
        groups.setdefault(_alike(call), []).append(call)
    arrays: dict[str, Any] = {} if heads.tokens is None else {"tokens": _text(heads.tokens)}
    ids = _ids(heads)
    if ids is not None:
        arrays["ids"] = numpy.array(ids, numpy.int64)
    for number, calls in enumerate(groups.values()):
        prefix = f"{number}." if len(groups) > 1 else ""
        arrays.update((prefix + name, array) for name, array in _npz_group(calls).items())
    out = io.BytesIO()
    numpy.savez_compressed(out, **arrays)
    return out.getvalue()


def save(heads: Heads, path: str | os.PathLike[str]) -> None:
    """Writes .json, .csv or .npz, by the name's ending; a file of that name is replaced only when all is ready."""
    ending = ending_of(path, ENDINGS, "save")
    if not heads.calls:
        raise ValueError("save: nothing was recorded")
    write(path, {".json": _json, ".csv": _csv, ".npz": _npz}[ending](heads))

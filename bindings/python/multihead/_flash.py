# SPDX-License-Identifier: Apache-2.0
"""FlashAttention's rules over multihead.attention, for arrays of any kind."""

from __future__ import annotations

import sys
from typing import Any, Sequence

import multihead


def listed(values: Any) -> list[Any]:
    """A list of Python's numbers, or of such lists, from an array or a sequence."""
    return list(values.tolist() if hasattr(values, "tolist") else values)


def number(function: str, name: str, value: Any) -> float:
    """The value as a float; TypeError for what is none."""
    if isinstance(value, (int, float)):
        return float(value)
    if not hasattr(value, "__float__") or len(getattr(value, "shape", ())) > 0:
        raise TypeError(f"{function}: {name} is {value!r}; it must be a number")
    return float(value)


def window_of(function: str, value: Any) -> tuple[int, int]:
    """(left, right) as integers; ValueError for another count, TypeError for what are none."""
    if not hasattr(value, "__len__") or len(value) != 2 or not all(hasattr(side, "__index__") for side in value):
        kind = ValueError if hasattr(value, "__len__") and len(value) != 2 else TypeError
        raise kind(f"{function}: window_size is {value!r}; it must be (left, right), two integers, negative for no bound")
    return value[0], value[1]


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of an array, or of numbers in lists; None for what is neither."""
    if hasattr(value, "shape"):
        return tuple(value.shape)
    if hasattr(value, "__float__"):
        return ()
    if not isinstance(value, (list, tuple)):
        return None
    inside = {_shape(part) for part in value}
    first = inside.pop() if inside else ()
    return None if inside or first is None else (len(value), *first)


def check_starts(function: str, cu_seqlens: tuple[Any, Any]) -> None:
    """Raises unless both are there and have one axis."""
    for name, starts in zip(("cu_seqlens_q", "cu_seqlens_k"), cu_seqlens):
        shape = _shape(starts)
        if shape is None or len(shape) != 1 or shape[0] == 0:
            given = f"is {starts!r}" if shape is None else f"has shape {shape}"
            kind = TypeError if shape is None else ValueError
            raise kind(f"{function}: {name} {given}; it must be (sequences + 1) integers, where each sequence begins, and "
                       f"the total at the end")


def check_slopes(function: str, slopes: Any, sequences: int, heads: int) -> None:
    """Raises unless the slopes are (heads) or (sequences, heads) numbers; none at all are for no sequence at all."""
    shape = _shape(slopes)
    if shape is None:
        raise TypeError(f"{function}: alibi_slopes is {slopes!r}; it must be numbers, (heads) or (sequences, heads)")
    if shape not in ((heads,), (sequences, heads)) and not (sequences == 0 and shape == (0,)):
        raise ValueError(f"{function}: alibi_slopes has shape {shape}; it must be ({heads},), a slope for each head, or "
                         f"({sequences}, {heads}), for each head of each sequence")


def probability(function: str, value: Any, name: str = "dropout_p") -> float:
    """The value as a float; ValueError outside 0 to below 1."""
    found = number(function, name, value)
    if not 0 <= found < 1:
        raise ValueError(f"{function}: {name} is {value}; it must be 0 or more and below 1")
    return found


def dropout(dropout_p: float, seed: Any, stream: int = 0) -> dict[str, Any]:
    """The options of multihead.attention; seed: an integer, or an array of one; None where there is no dropout."""
    return {} if seed is None else {"dropout": dropout_p, "dropout_seed": int(seed), "dropout_stream": stream}


def _calls(q: Any, k: Any, v: Any, *, cu_seqlens: tuple[Any, Any], alibi_slopes: Any, scale: float | None, window: Sequence[int],
           softcap: float, dropout_p: float, seed: Any, threads: int | None) -> list[tuple[Any, Any, dict[str, Any]]]:
    """The calls of multihead.attention that are wanted: (part of the queries, part of the keys, options).

    One for all, with parts None, or one a sequence where each has slopes of its own."""
    options: dict[str, Any] = {"layout": "bshd", "scale": scale, "softcap": softcap, "threads": threads,
                               "window": tuple(None if side < 0 else side for side in window)}
    starts = None if cu_seqlens[0] is None else (listed(cu_seqlens[0]), listed(cu_seqlens[1]))
    slopes = None if alibi_slopes is None else listed(alibi_slopes)
    if slopes and isinstance(slopes[0], (list, tuple)):
        _check_each(q, k, v, starts, slopes, options)
        spans_q, spans_k = ([s if some is None else slice(some[s], some[s + 1]) for s in range(len(slopes))]
                            for some in (starts or (None, None)))
        return [(a, b, {**options, **dropout(dropout_p, seed, s), "query_offset": len(k[b]) - len(q[a]),
                        "alibi_slopes": own})
                for s, (a, b, own) in enumerate(zip(spans_q, spans_k, slopes))]
    options.update(dropout(dropout_p, seed), alibi_slopes=slopes or None)  # rows for no sequence at all
    if starts is None:
        return [(None, None, {**options, "query_offset": k.shape[1] - q.shape[1]})]
    queries, keys = ([end - begin for begin, end in zip(some, some[1:])] for some in starts)
    return [(None, None, {**options, "cu_seqlens": starts, "query_offset": [b - a for a, b in zip(queries, keys)]})]


def _check_each(q: Any, k: Any, v: Any, starts: tuple[list[int], list[int]] | None, slopes: list[list[float]],
                options: dict[str, Any]) -> None:
    """Raises for whatever a call of all sequences would refuse, so that nothing is computed before."""
    if tuple(k.shape[:-1]) != tuple(v.shape[:-1]) or (starts is None and q.shape[0] != k.shape[0]):
        raise ValueError(f"attention: q, k and v have shapes {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}; all "
                         f"must be equal in batch, k and v in kv_len and kv_heads")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"attention: k has head_dim {k.shape[-1]}, q has {q.shape[-1]}; they must be equal")
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError(f"attention: q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; they must be the same")
    told = {name: options[name] for name in ("scale", "softcap", "threads", "window")}
    extents = {"q_len": q.shape[-3], "kv_len": k.shape[-3], "heads": q.shape[-2], "kv_heads": k.shape[-2],
               "head_dim": q.shape[-1], "value_dim": v.shape[-1], "batch": q.shape[0] if starts is None else 1}
    if starts is not None:
        told["cu_seqlens"] = starts
    offset = 0 if starts is None else [0] * max(len(starts[0]) - 1, 0)  # any: it only aligns
    for own in slopes:
        multihead.explain(**extents, **told, query_offset=offset, alibi_slopes=own)


def _part(some: Any, part: Any) -> Any:
    return some if part is None or some is None else some[part]


def _part_of_rows(lse: Any, part: Any) -> Any:
    """Of (batch, heads, q_len), or packed (heads, total_q)."""
    return lse[:, part] if isinstance(part, slice) and lse is not None else _part(lse, part)


def _joined(parts: Sequence[Any], part: Any, packed_axis: int) -> Any:
    """What the calls gave, as one array."""
    if part is None:
        return parts[0]
    arrays = sys.modules[type(parts[0]).__module__.partition(".")[0]]  # numpy or torch
    return arrays.concatenate(parts, packed_axis) if isinstance(part, slice) else arrays.stack(parts)


def attend(q: Any, k: Any, v: Any, **call: Any) -> Any:
    """(out, lse) of q (batch, q_len, heads, head_dim), or of packed sequences q (total_q, heads, head_dim).

    call: cu_seqlens, a pair, of None where the sequences are not packed; alibi_slopes (heads) or (sequences, heads);
    window (left, right), negative: no bound; seed: of dropout, None without it; scale, softcap, dropout_p, threads. The
    last query of a sequence meets its last key."""
    calls = _calls(q, k, v, **call)
    results = [multihead.attention(_part(q, a), _part(k, b), _part(v, b), return_lse=True, **options)
               for a, b, options in calls]
    outs, lses = zip(*results)
    return _joined(outs, calls[0][0], 0), _joined(lses, calls[0][0], 1)


def attend_backward(gradients: Any, wanted: list[str], above: Sequence[Any], q: Any, k: Any, v: Any, out: Any, lse: Any,
                    **call: Any) -> dict[str, Any]:
    """{name: gradient} of the wanted among q, k, v and alibi_slopes by a function of one call; above: of out and lse."""
    d_out, d_lse = above
    calls = _calls(q, k, v, **call)
    wanted = [name for name in wanted if name != "alibi_slopes" or calls[0][2]["alibi_slopes"]]  # none for no sequence
    results = [gradients(wanted, (_part(d_out, a), _part_of_rows(d_lse, a)),
                         (_part(q, a), _part(k, b), _part(v, b), _part(out, a), _part_of_rows(lse, a)), **options)
               for a, b, options in calls]
    return {name: _joined([result[name] for result in results], calls[0][0], 0) for name in wanted}

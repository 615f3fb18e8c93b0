# SPDX-License-Identifier: Apache-2.0
"""Statistics of what rows attend to, as arrays, and heads in numbers and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import _core

_ROWS = ("visible", "entropy", "sum_squares", "distance", "offset_mass", "key_mass", "class_mass", "duplicate_mass",
         "induction_mass", "top_keys", "top_weights", "received", "map")


class Label(NamedTuple):
    """A name for what a head does, with the number that earned it: value, measured as measure says, reached threshold,
    which source published."""

    name: str
    measure: str
    value: float
    threshold: float
    source: str


@dataclass(frozen=True)
class Summary:
    """One head in numbers: means over the rows that see a key, of all batch entries. NaN where a statistic was not asked
    for; offset_mass, key_mass and class_mass by offset, key and name of class. docs/insight.md defines each."""

    rows: int
    entropy: float
    entropy_share: float
    largest: float
    sum_squares: float
    distance: float
    offset_mass: dict[int, float]
    key_mass: dict[int, float]
    class_mass: dict[str, float]
    duplicate_mass: float
    induction_mass: float
    top_offset: int | None
    top_offset_share: float | None


class Statistics:
    """What rows of weights are like: arrays of the caller's kind, float32, or float64 for float64. None: not asked for.

    visible, entropy, sum_squares, distance   (batch, heads, q_len)
    offset_mass, key_mass, class_mass         (batch, heads, q_len, one for each of offsets, keys, classes)
    duplicate_mass, induction_mass            (batch, heads, q_len), where tokens were given
    top_keys (int64), top_weights             (batch, heads, q_len, top)
    received                                  (batch, heads, kv_len)
    map                                       (batch, heads, bins of queries, bins of keys)
    norm_weighted                             Statistics of the weights times the norms, or None

    Without the axis of the batch where the call had none. A row that sees no key has zeros, NaN as entropy and distance,
    and -1 as top keys. offsets, keys, classes and bin are those that were asked for. query_offset: key j stands at query
    i where j = i + query_offset, or None where no one number says it. rows: (batch * q_len) of 0 and 1, of the rows that
    count in summaries; None: all.
    """

    visible: Any
    entropy: Any
    sum_squares: Any
    distance: Any
    offset_mass: Any
    key_mass: Any
    class_mass: Any
    duplicate_mass: Any
    induction_mass: Any
    top_keys: Any
    top_weights: Any
    received: Any
    map: Any
    norm_weighted: Statistics | None

    def __init__(self, found: Mapping[str, Any], query_offset: int | None = 0, rows: Sequence[int] | None = None,
                 distribution: str = "plain") -> None:
        self._found = found
        self._distribution = distribution
        self._arrays = found[distribution]
        self._heads: Any = None
        for name in _ROWS:
            setattr(self, name, self._arrays.get(name))
        self.extents: tuple[int, int, int, int] = found["extents"]
        self.offsets: tuple[int, ...] = tuple(found["offsets"])
        self.keys: tuple[int, ...] = tuple(found["keys"])
        self.classes: tuple[str, ...] = tuple(found["classes"])
        self.bin: int = found["bin"]
        self.query_offset = query_offset
        self.rows = rows
        self.norm_weighted = None
        if distribution == "plain" and "norm_weighted" in found:
            self.norm_weighted = Statistics(found, query_offset, rows, "norm_weighted")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_heads": None}  # what the library keeps is made again

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return self.extents[1]

    def arrays(self) -> Iterator[tuple[str, Any]]:
        """(name, array) of each statistic that was asked for."""
        return ((name, self._arrays[name]) for name in _ROWS if name in self._arrays)

    def sequence(self, entry: int) -> Statistics:
        """Those of one sequence of the batch alone; its arrays are parts of these."""
        batch, heads, q_len, kv_len = self.extents
        if not 0 <= entry < batch:
            raise ValueError(f"Statistics: sequence is {entry}; 0 to {batch - 1} are there")
        if batch == 1:
            return self
        found = {**self._found, "extents": (1, heads, q_len, kv_len)}
        for distribution in ("plain", "norm_weighted"):
            if distribution in found:
                found[distribution] = {name: array[entry:entry + 1] for name, array in found[distribution].items()}
        rows = None if self.rows is None else list(self.rows[entry * q_len:(entry + 1) * q_len])
        return Statistics(found, self.query_offset, rows, self._distribution)

    def _of_heads(self) -> Any:
        """The same in the memory of the library."""
        if self._heads is None:
            batch, heads, q_len, kv_len = self.extents
            top = self._arrays.get("top_keys")
            said = {"batch": batch, "heads": heads, "q_len": q_len, "kv_len": kv_len,
                    "query_offset": self.query_offset, "offsets": self.offsets, "keys": self.keys,
                    "classes": self.classes, "bin": self.bin, "top": 0 if top is None else top.shape[-1]}
            weighted = None if self.norm_weighted is None else self.norm_weighted._arrays
            self._heads = _core.Heads.of(said, self._arrays, weighted, self.rows)
        return self._heads

    def _check_top(self) -> None:
        if "top_keys" not in self._arrays:
            raise ValueError("Statistics: top is 0; heads in numbers want at least 1")

    def summary(self, head: int) -> Summary:
        """One head in numbers. Raises ValueError for a head that is none, and where top was 0."""
        self._check_top()
        found = self._of_heads().summary(head)
        found["offset_mass"] = dict(zip(self.offsets, found["offset_mass"]))
        found["key_mass"] = dict(zip(self.keys, found["key_mass"]))
        found["class_mass"] = dict(zip(self.classes, found["class_mass"]))
        if self.query_offset is None:
            found["top_offset"] = found["top_offset_share"] = None
        return Summary(**found)

    def labels(self, head: int) -> list[Label]:
        """What the head does, by published thresholds: all names that apply, or "mixed" alone. docs/insight.md has the
        table of them. Raises as summary() does."""
        self._check_top()
        return [Label(*label) for label in self._of_heads().labels(head)]

    def __repr__(self) -> str:
        batch, heads, q_len, kv_len = self.extents
        named = ", ".join(name for name, _ in self.arrays())
        return f"Statistics(batch={batch}, heads={heads}, q_len={q_len}, kv_len={kv_len}: {named})"


def _numbers(value: Any) -> list[int] | None:
    try:
        return [int(one) for one in value]
    except (TypeError, ValueError):
        return None


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "__len__")


def query_offset_of(options: Mapping[str, Any], q_len: int, kv_len: int) -> int | None:
    """The number p for which query i of a call stands at key i + p; None where sequences differ in it."""
    pairs = [options[name] for name in ("cu_seqlens", "segments") if options.get(name) is not None]
    if pairs:
        alike = not _is_pair(pairs[0]) or _numbers(pairs[0][0]) == _numbers(pairs[0][1]) is not None
        plain = options.get("query_offset") is None and options.get("lengths") is None
        return 0 if alike and plain and q_len == kv_len else None
    offset: Any = options.get("query_offset")
    if offset is not None:
        several = _numbers(offset) if hasattr(offset, "__len__") else [int(offset)]
        return several[0] if several and len(set(several)) == 1 else None
    if options.get("causal") == "bottom_right":
        ends = {kv_len} if options.get("lengths") is None else set(_numbers(options["lengths"]) or ())
        return ends.pop() - q_len if len(ends) == 1 else None
    return 0

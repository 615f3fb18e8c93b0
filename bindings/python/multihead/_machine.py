# SPDX-License-Identifier: Apache-2.0
"""The machine and the plan of a call: info, explain, tasks_run, threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from . import _core
from ._types import AttentionOptions, DType, Target

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class Info:
    """targets: those that this machine can run, best first; chosen: what runs unless a call pins another; threads: of the
    machine that the process may use; models: whether Encoder was built."""

    version: str
    processor: str
    compiler: str
    targets: tuple[str, ...]
    chosen: str
    threads: int
    models: bool


@dataclass(frozen=True)
class Plan:
    """What a call of attention() would run, and why."""

    target: str
    kernel: str
    why: str
    row_block: int
    key_block: int
    score_tile: str
    terms: str
    tasks: int
    threads: int
    visible_pairs: float
    flops: float
    scratch_bytes: int


def info() -> Info:
    """The machine and the library. ValueError: MULTIHEAD_TARGET names a target that is none or cannot run here."""
    return Info(**_core.info())


def explain(*, q_len: int, head_dim: int, heads: int = 1, kv_heads: int | None = None, kv_len: int | None = None,
            value_dim: int | None = None, batch: int = 1, dtype: DType = "float32",
            **options: Unpack[AttentionOptions]) -> Plan:
    """The plan of attention() for these extents and options; nothing is computed. Raises as attention() does.

    kv_heads None: heads. kv_len None: q_len. value_dim None: head_dim.
    """
    extents = (batch, heads, heads if kv_heads is None else kv_heads, q_len, q_len if kv_len is None else kv_len, head_dim,
               head_dim if value_dim is None else value_dim)
    return Plan(**_core.explain(extents, dtype, options))


def tasks_run(target: Target | str | None = None) -> int:
    """How many tasks of attention the kernels of a target (None: of all) have run in this process."""
    if target is not None:
        return _core.tasks_run(target)
    return sum(_core.tasks_run(name) for name in get_args(Target))


def get_num_threads() -> int:
    """Threads of a call that names none: what set_num_threads() said, or all that the process may use."""
    return _core.get_num_threads()


def set_num_threads(threads: int | None) -> None:
    """Sets it for the whole process, at least 1; None: all that the process may use.

    It is the library's own number: torch.get_num_threads() and OMP_NUM_THREADS are neither read nor changed.
    """
    _core.set_num_threads(threads)

# SPDX-License-Identifier: Apache-2.0
"""Who wants statistics of the attention that runs: between multihead.inspect and the models that it watches."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple


class Call(NamedTuple):
    """What a recorder wants of one call, and what it says of it."""

    request: Any  # a StatisticsRequest
    weights: bool
    options: dict[str, Any]
    said: dict[str, Any]
    sums: tuple[Any, dict[str, Any]] | None = None  # (request, options) of a pass over the rows that count alone
    first_keys: tuple[str, ...] = ()  # the classes that are keys counted from each sequence's first


# The recorders of this context, the outermost first. Each has wants(module) -> bool, request(module, query, key, options)
# -> Call and add(call, statistics, weights, statistics of sums or None).
recorders: ContextVar[tuple[Any, ...]] = ContextVar("multihead_recorders", default=())


def wanting(module: Any) -> list[Any]:
    """The recorders that want this module's attention."""
    return [recorder for recorder in recorders.get() if recorder.wants(module)]

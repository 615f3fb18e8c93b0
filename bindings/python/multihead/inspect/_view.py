# SPDX-License-Identifier: Apache-2.0
"""statistics_of_weights() and head_view(): weights that are already there, as numbers, labels, pictures and a page."""

from __future__ import annotations

import html
import os
import zlib
from collections.abc import Sequence
from typing import Any, Literal

from .. import _core
from .._statistics import Label, Statistics, Summary
from .._types import Array, StatisticsRequest
from ._files import ending_of, write
from ._save import ENDINGS, Call, Heads, save

_SHOWN = 512  # tokens that a page shows in full


def statistics_of_weights(weights: Array, request: StatisticsRequest | bool = True, *, query_offset: int = 0) -> Statistics:
    """The statistics of weights (batch, heads, q_len, kv_len), or without the batch, each at least 0; float32 or float64.

    Query i stands at key i + query_offset. The plain definitions, summed in float64 key by key: slower than what
    attention() gathers, and what that is checked against. Raises TypeError and ValueError.
    """
    return Statistics(_core.statistics_of_weights(weights, request, query_offset), query_offset)


def _plain(array: Any, layer: int) -> Any:
    """The array as float32 or float64 without history and without a batch of one; rows of NaN alone as zeros."""
    tensor = hasattr(array, "detach")
    if isinstance(array, (tuple, list)):
        raise TypeError(f"head_view: attentions has a {type(array).__name__} as layer {layer}; an array a layer is wanted. Of what "
                        "generate() gives take one step: attentions[0]")
    if not tensor and not hasattr(array, "astype"):
        raise TypeError(f"head_view: attentions has {type(array).__name__}; arrays of NumPy or PyTorch are wanted"
                        + (". Models give them where they are called with output_attentions=True" if array is None else ""))
    if tensor:
        array = array.detach()
        if array.device.type != "cpu":
            raise ValueError(f"head_view: attentions is on device {array.device}; it must be on the CPU")
    kind = str(array.dtype).replace("torch.", "")
    if kind not in ("float32", "float64", "bfloat16", "float16"):
        raise TypeError(f"head_view: attentions has elements of {kind}; floating ones are wanted")
    narrow = kind in ("bfloat16", "float16")
    if narrow:
        array = _single(array)
    shape = array.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] != 1):
        raise ValueError(f"head_view: attentions has shape {tuple(shape)}; (1, heads, q_len, kv_len) or (heads, q_len, kv_len) is wanted, "
                         "of each layer")
    return _weights(array[0] if len(shape) == 4 else array, layer, 1e-2 if narrow else 1e-3)


def _first(bad: Any) -> tuple[int, ...] | None:
    """The index of the first True."""
    return next((tuple(int(one) for one in index) for index in bad.nonzero()), None) if hasattr(bad, "detach") else (
        tuple(int(one[0]) for one in bad.nonzero()) if bad.any() else None)


def _weights(weights: Any, layer: int, above: float) -> Any:
    """The weights, where they are weights: at least 0, each row's at most 1 together (and rounding); of a row that sees no key a
    softmax gives NaN alone, which becomes zeros."""
    nan = weights != weights
    empty = nan.all(-1)
    if weights.shape[-1] and empty.any():
        if empty.all():
            raise ValueError(f"head_view: attentions of layer {layer} is NaN everywhere")
        weights = _without(weights, nan & empty[..., None])
        nan = nan & ~empty[..., None]
    for bad, rule in ((nan, "a row is NaN as a whole or nowhere"), (weights < 0, "weights are at least 0; are these scores?")):
        place = _first(bad)
        if place is not None:
            raise ValueError(f"head_view: attentions has {float(weights[place]):g} in layer {layer}, head {place[0]}, row {place[1]}, "
                             f"key {place[2]}; {rule}")
    sums = weights.sum(-1)
    place = _first(sums > 1 + above)
    if place is not None:
        raise ValueError(f"head_view: the attentions of layer {layer}, head {place[0]}, row {place[1]} sum to {float(sums[place]):g}; a "
                         "row's weights sum to at most 1, after the softmax and without dropout")
    return weights


def _without(weights: Any, where: Any) -> Any:
    """The weights, with zeros there."""
    if hasattr(weights, "detach"):
        return weights.masked_fill(where, 0)
    weights = weights.copy()
    weights[where] = 0
    return weights


def _single(array: Any) -> Any:
    return array.float() if hasattr(array, "detach") else array.astype("float32", copy=False)


def _names(argument: str, names: Sequence[str], length: int, axis: str) -> list[str]:
    if isinstance(names, str) or not hasattr(names, "__len__"):
        raise TypeError(f"head_view: {argument} has type {type(names).__name__}; a list of str is wanted")
    if not all(isinstance(name, str) for name in names):
        kind = next(type(name).__name__ for name in names if not isinstance(name, str))
        raise TypeError(f"head_view: {argument} has {kind} in it; a list of str is wanted, which a tokenizer's "
                        "convert_ids_to_tokens() makes of ids")
    if len(names) != length:
        raise ValueError(f"head_view: {argument} has {len(names)} tokens, the weights have {axis} {length}; they must be equal")
    # Halves of characters, which are no UTF-8, become replacement characters as any other text's faults do.
    return [name.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for name in names]


def _norms(norms: Any, weights: Any, layer: int) -> Any:
    """The norms of a layer as an array of the weights' kind and type."""
    if hasattr(weights, "detach"):
        norms = norms.detach().to(weights.dtype) if hasattr(norms, "detach") else weights.new_tensor(norms)
    else:
        import numpy

        norms = numpy.asarray(norms.detach().double() if hasattr(norms, "detach") else norms).astype(weights.dtype)
    wanted = (weights.shape[0], weights.shape[2])
    if tuple(norms.shape) not in (wanted, (1, *wanted)):
        raise ValueError(f"head_view: norms has {tuple(norms.shape)}; (heads, kv_len) = {wanted} is wanted, of each layer")
    norms = norms.reshape(wanted)
    place = _first(~((norms >= 0) & (norms < float("inf"))))
    if place is not None:
        raise ValueError(f"head_view: norms has {float(norms[place]):g} in layer {layer}, head {place[0]}, key {place[1]}; norms are at "
                         "least 0 and finite")
    return norms


def _special(special: Any, queries: int, keys: int | None) -> tuple[list[bool] | None, list[bool] | None]:
    """Of the queries and of the keys, where those are other tokens (keys: how many)."""
    if special is None:
        return None, None
    sides = (special,) if keys is None else tuple(special)
    wanted = (queries,) if keys is None else (queries, keys)
    if len(sides) != len(wanted):
        raise ValueError(f"head_view: special has {len(sides)} lists; with kv_tokens one of the queries and one of the keys are wanted")
    flags = [[bool(one) for one in side] for side in sides]
    for side, length in zip(flags, wanted):
        if len(side) != length:
            raise ValueError(f"head_view: special has {len(side)} tokens, the weights have {length}; they must be equal")
    return flags[0], flags[1] if len(flags) == 2 else None


class HeadView:
    """Layers of heads to look at: an interactive page of one file, pictures for a terminal, numbers and labels.

    statistics: a Statistics for each layer. In a notebook the object shows itself. The page needs no network: everything
    is in it, and its Content-Security-Policy forbids the rest. Tokens may be any text.
    """

    def __init__(self, statistics: Sequence[Statistics], weights: Sequence[Any] | None, tokens: Sequence[str], *,
                 kv_tokens: Sequence[str] | None = None, title: str | None = None,
                 norms: Sequence[Any] | None = None, special: Any = None) -> None:
        self.statistics: tuple[Statistics, ...] = tuple(statistics)
        if not self.statistics:
            raise ValueError("head_view: attentions has no layers; there must be some")
        first = self.statistics[0].extents
        for place, layer in enumerate(self.statistics):
            if layer.extents != first:
                raise ValueError(f"head_view: layer {place} has (batch, heads, q_len, kv_len) {layer.extents}, layer 0 "
                                 f"{first}; they must be equal")
        if first[0] != 1:
            raise ValueError(f"head_view: there are {first[0]} sequences in the batch; one is shown at a time")
        self.tokens = _names("tokens", tokens, first[2], "q_len")
        if kv_tokens is None and first[2] != first[3]:
            raise ValueError(f"head_view: kv_tokens is missing, q_len is {first[2]} and kv_len {first[3]}; it must be given")
        self.kv_tokens = self.tokens if kv_tokens is None else _names("kv_tokens", kv_tokens, first[3], "kv_len")
        self.title = "Attention heads" if title is None else title
        self._weights = weights
        self._norms = norms
        self._special = _special(special, first[2], None if kv_tokens is None else first[3])

    def _layer(self, function: str, layer: int, head: int) -> Statistics:
        layers, heads = len(self.statistics), self.statistics[0].heads
        for name, at, count in (("layer", layer, layers), ("head", head, heads)):
            if not 0 <= at < count:
                raise ValueError(f"{function}: {name} is {at}; 0 to {count - 1} are there")
        return self.statistics[layer]

    def summary(self, layer: int, head: int) -> Summary:
        """One head in numbers."""
        return self._layer("summary", layer, head).summary(head)

    def labels(self, layer: int, head: int) -> list[Label]:
        """What one head does, with the numbers that say so."""
        return self._layer("labels", layer, head).labels(head)

    def picture(self, layer: int, head: int, columns: int = 80, color: Literal["256", "24bit"] | None = None) -> str:
        """One head's weights, or its map, as lines of text for a terminal of that width."""
        pooled = self._layer("picture", layer, head).map
        if self._weights is not None:
            return "\n".join(_core.picture(_single(self._weights[layer])[head], columns, color, self.tokens,
                                           [] if self.kv_tokens is self.tokens else self.kv_tokens))
        if pooled is None:
            raise ValueError("picture: there are neither weights nor maps; bin=16 of a StatisticsRequest asks for maps")
        return "\n".join(_core.picture(_single(pooled if len(pooled.shape) == 3 else pooled[0])[head], columns, color, [], []))

    def html(self) -> str:
        """The page."""
        full = self._weights is not None and max(len(self.tokens), len(self.kv_tokens)) <= _SHOWN
        if not full and any(layer.map is None for layer in self.statistics):
            raise ValueError("head_view: there are no maps and the weights are not shown in full, as they are to "
                             f"{_SHOWN} tokens; bin=16 or more of a StatisticsRequest asks for maps")
        weights = [_single(layer) for layer in self._weights] if full and self._weights is not None else None
        norms = [_single(layer) for layer in self._norms] if full and self._norms is not None else None
        heads = [layer._of_heads() for layer in self.statistics]
        page = _core.page((self.title, self.tokens, [] if self.kv_tokens is self.tokens else self.kv_tokens, heads, weights,
                           norms, *self._special, lambda data: zlib.compress(data, 9)))
        return page.decode("utf-8")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page (.html), or the numbers as .json, .csv or .npz with the names that `multihead heads` gives them.

        A file of that name is replaced only when all is ready. Raises ValueError for another ending, and OSError.
        """
        if ending_of(path, (".html", ".htm", *ENDINGS), "save") in ENDINGS:
            calls = [Call(statistics, layer, {}) for layer, statistics in enumerate(self.statistics)]
            save(Heads(calls, self.tokens), path)
        else:
            write(path, self.html().encode("utf-8"))

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks; its scripts can reach nothing outside the frame."""
        return (f'<iframe title="{html.escape(self.title, quote=True)}" sandbox="allow-scripts" '
                'style="width:100%;height:720px;border:0" '
                f'srcdoc="{html.escape(self.html(), quote=True)}"></iframe>')

    def __repr__(self) -> str:
        _, heads, q_len, kv_len = self.statistics[0].extents
        return f"HeadView(layers={len(self.statistics)}, heads={heads}, q_len={q_len}, kv_len={kv_len})"


def head_view(attentions: Array | Sequence[Array], tokens: Sequence[str], *, kv_tokens: Sequence[str] | None = None,
              title: str | None = None, norms: Array | Sequence[Array] | None = None,
              special: Sequence[bool] | tuple[Sequence[bool], Sequence[bool]] | None = None,
              request: StatisticsRequest | None = None) -> HeadView:
    """A HeadView of weights that are already there, as models give them with output_attentions=True.

    attentions  one array a layer, or one array: (1, heads, q_len, kv_len) or (heads, q_len, kv_len), of NumPy or PyTorch
                (on the CPU), of any floating type
    tokens      q_len texts; kv_tokens: kv_len texts, where keys are other tokens than queries
    norms       one a layer, (heads, kv_len): of value vectors after the output weight; the page then shows the weights
                times norms beside them, and the statistics have norm_weighted
    special     which tokens are the model's own, as [CLS] is: a truth value a token, with kv_tokens a pair of such lists;
                None: the page guesses by their texts
    request     which statistics; None: the usual ones, top 8 and, above 512 tokens, maps
    Raises TypeError and ValueError.
    """
    if attentions is None:
        raise TypeError("head_view: attentions is None; models give them where they are called with output_attentions=True")
    single = hasattr(attentions, "shape")
    layers = [_plain(layer, place) for place, layer in enumerate([attentions] if single else attentions)]
    longest = max((max(layer.shape[1:]) for layer in layers), default=0)
    if request is None:
        request = StatisticsRequest(top=8, received=True, bin=0 if longest <= _SHOWN else bin_for(longest))
    given: list[Any] = [None] * len(layers)
    if norms is not None:
        given = [norms] if hasattr(norms, "shape") else list(norms)
        if len(given) != len(layers):
            raise ValueError(f"head_view: norms has {len(given)} layers, attentions {len(layers)}; they must be equal")
        given = [_norms(norm, layer, place) for place, (norm, layer) in enumerate(zip(given, layers))]
    statistics = [
        statistics_of_weights(layer, request if norms is None else request._replace(norms=norm, norm_weighted=True))
        for layer, norm in zip(layers, given)]
    return HeadView(statistics, layers, tokens, kv_tokens=kv_tokens, title=title,
                    norms=None if norms is None else given, special=special)


def bin_for(length: int) -> int:
    """Queries and keys of a map's bin, such that a map has at most 256 x 256."""
    for wide in (16, 32, 64):
        if length <= 256 * wide:
            return wide
    return -(-length // (256 * 128)) * 128

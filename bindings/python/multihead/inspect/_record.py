# SPDX-License-Identifier: Apache-2.0
"""record(): the statistics of every attention that a model of Transformers runs, and what is done with them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from .. import _recording
from .._statistics import Statistics
from .._types import Integers, StatisticsRequest
from ._compare import Difference, compare
from ._save import Call, Heads, save
from ._view import HeadView


class LayerStatistics(Statistics):
    """The Statistics of one attention of a recorded model.

    module   the name of its module in the model
    kind     "self" or "cross"
    step     the forward pass of the model that it was in, counted from 0
    layer    its place among the attentions of that pass, counted from 0
    ids      the tokens' ids (batch, q_len) that its part of the model read; None where it read none
    weights  (batch, heads, q_len, kv_len), where they were asked for
    """

    def __init__(self, found: Mapping[str, Any], said: Mapping[str, Any], weights: Any = None) -> None:
        super().__init__(found, said["query_offset"], said["rows"])
        self.module: str = said["module"]
        self.kind: str = said["kind"]
        self.step: int = said["step"]
        self.layer: int = said["layer"]
        self.ids = said["ids"]
        self.weights = weights

    def __repr__(self) -> str:
        return f"<step {self.step}, layer {self.layer}, {self.module}: {super().__repr__()}>"


class Recording:
    """What record() collects. layers: a LayerStatistics for each attention that ran, in the order of the calls."""

    def __init__(self, tokens: Sequence[str] | None = None) -> None:
        self.layers: list[LayerStatistics] = []
        self.tokens = tokens

    @property
    def steps(self) -> list[list[LayerStatistics]]:
        """The layers of each forward pass: of generate(), first that over the prompt, then one for each new token."""
        found: list[list[LayerStatistics]] = []
        for layer in self.layers:
            while len(found) <= layer.step:
                found.append([])
            found[layer.step].append(layer)
        return found

    def select(self, *, step: int = 0, modules: str = "", kind: Literal["self", "cross"] | None = None) -> list[LayerStatistics]:
        """The layers of one forward pass whose module's name contains modules ("decoder"), of one kind or of both."""
        return [layer for layer in self.layers
                if layer.step == step and modules in layer.module and kind in (None, layer.kind)]

    def view(self, tokens: Sequence[str] | None = None, *, kv_tokens: Sequence[str] | None = None, step: int = 0,
             modules: str = "", kind: Literal["self", "cross"] | None = None, sequence: int | None = None,
             title: str | None = None) -> HeadView:
        """The HeadView of one forward pass of one sequence; tokens: its texts, unless record() had them.

        With weights (record(model, weights=True)) the page shows them in full to 512 tokens; otherwise the maps and top keys
        that the request asked for. sequence: which of a batch of several.
        Raises ValueError where nothing was recorded, where there are neither weights nor maps, and where layers differ in
        shape: modules and kind then choose among them.
        """
        layers: list[Any] = list(self.select(step=step, modules=modules, kind=kind))
        if not layers:
            raise ValueError(f'view: nothing was recorded in step {step} of modules with "{modules}" in their names'
                             + ("" if kind is None else f" of kind {kind!r}"))
        tokens = self.tokens if tokens is None else tokens
        if tokens is None:
            raise ValueError("view: tokens is missing; it must be given here or to record()")
        kept = all(layer.weights is not None for layer in layers)
        if not kept and any(layer.map is None for layer in layers):
            raise ValueError("view: neither weights nor maps were recorded; record(model, weights=True) keeps weights, which "
                             "a page shows to 512 tokens, and request=StatisticsRequest(bin=128, top=8) makes maps of longer "
                             "texts")
        batch = layers[0].extents[0]
        if sequence is None and batch > 1:
            raise ValueError(f"view: sequence is missing, the batch has {batch}; it must say which of them is shown")
        at = 0 if sequence is None else sequence
        if not 0 <= at < batch:
            raise ValueError(f"view: sequence is {at}; 0 to {batch - 1} are there")
        weights = [layer.weights[at] for layer in layers] if kept else None
        return HeadView([layer.sequence(at) for layer in layers], weights, tokens, kv_tokens=kv_tokens, title=title)

    def compare(self, other: Recording) -> list[Difference]:
        """How two recordings of one model, of other inputs' precisions or weights, differ: layer by layer, head by head and
        statistic by statistic, over the rows that count. Raises ValueError where their layers differ in name or shape."""
        if not isinstance(other, Recording):
            raise TypeError(f"compare: other has type {type(other).__name__}; a Recording is wanted")
        return compare(self.layers, other.layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes .json, .csv or .npz, by the name's ending, with the names that `multihead heads` gives numbers, and step,
        module and kind beside. In .npz layers that differ in shape stand in groups, "0." and so on before their names.

        A file of that name is replaced only when all is ready. Raises ValueError for another ending, and OSError.
        """
        save(Heads([Call(layer, layer.layer, {"step": layer.step, "module": layer.module, "kind": layer.kind}, layer.weights,
                         layer.ids) for layer in self.layers], self.tokens), path)

    def __repr__(self) -> str:
        return f"Recording({len(self.layers)} layers in {len(self.steps)} steps)"


@contextmanager
def record(model: Any, tokens: Sequence[str] | None = None, *, request: StatisticsRequest | None = None,
           token_classes: Mapping[str, Integers] | None = None, weights: bool = False) -> Iterator[Recording]:
    """Collects statistics of every attention that a model of Transformers runs, on the CPU, without output_attentions.

        with inspect.record(model) as seen:
            model(**inputs)

    The model runs with attn_implementation="multihead": if it has another one it is changed, and set back when the last
    block of this model ends. Recording changes no bit of what the model gives. What is recorded are calls from this thread
    (this context) within the block, of this model's modules; blocks may be nested, overlap, and run in several threads.
    Where calls left nothing recorded, a RuntimeWarning at the end of the block says so. A training step may be recorded.

    tokens         the texts of the sequence, for view()
    request        which statistics; None: StatisticsRequest(tokens=True). tokens=True: duplicate_mass and induction_mass
                   where the ids are known: of self-attention without a cache. norm_weighted is not known here.
    token_classes  {name: ids}: classes of keys by their tokens' ids, such as {"separator": [tokenizer.sep_token_id]}; of
                   attentions where ids are known
    weights        True: each LayerStatistics has its weights too, N x N of them

    Several passes (generate) are told apart by LayerStatistics.step. Rows of padding count in no summary, where the
    padding mask says so. Raises ImportError without Transformers, TypeError and ValueError.
    """
    recorder_of: Any = importlib.import_module("multihead.transformers._recorder").Recorder
    recording = Recording(tokens)
    request = StatisticsRequest(tokens=True) if request is None else request
    recorder = recorder_of(model, request, token_classes or {}, weights, recording.layers, LayerStatistics)
    with recorder.attached():
        _recording.recorders.set((*_recording.recorders.get(), recorder))
        try:
            yield recording
        finally:  # blocks need not end in the order in which they began
            _recording.recorders.set(tuple(one for one in _recording.recorders.get() if one is not recorder))

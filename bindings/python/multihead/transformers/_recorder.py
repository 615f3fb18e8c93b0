# SPDX-License-Identifier: Apache-2.0
"""What multihead.inspect.record() watches of one model: its implementation of attention, the ids it reads, its passes, and what each call means."""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack, contextmanager

import torch
from transformers import PreTrainedModel

from .. import _recording
from .._statistics import query_offset_of
from .._types import StatisticsRequest
from ._models import NAME, _implementations

_CROSS = ("cross", "encoder_attn", "EncDecAttention")


# By id of a configuration that blocks have on "multihead": [it, the implementation that it had, how many blocks].
_exchanged = {}
_exchanging = threading.RLock()


@contextmanager
def _running_on_multihead(model):
    """The model with our implementation; after the last block of it, in whatever thread, with the one that it had."""
    with _exchanging:
        before = _implementations(model)
        if any(implementation != NAME for _, implementation in before):
            model.set_attn_implementation(NAME)
        for configuration, implementation in before:
            _exchanged.setdefault(id(configuration), [configuration, implementation, 0])[2] += 1
    try:
        yield
    finally:
        with _exchanging:
            for configuration, _ in before:
                entry = _exchanged[id(configuration)]
                entry[2] -= 1
                if entry[2] == 0:
                    del _exchanged[id(configuration)]
                    configuration._attn_implementation_internal = entry[1]


def _ids_of(arguments, named):
    """The ids (batch, length) of a call, or None."""
    ids = named.get("input_ids", arguments[0] if arguments else None)
    known = isinstance(ids, torch.Tensor) and ids.dim() == 2 and not ids.is_floating_point() and ids.dtype != torch.bool
    return ids.detach().cpu() if known else None


def _rows_that_count(options, q_len, kv_len, offset):
    """(batch * q_len) of 0 and 1: 0 for queries whose own key is padding; None where no mask says so."""
    at = torch.arange(q_len) + (offset or 0)
    if "lengths" in options and offset is not None:
        return (at < torch.as_tensor(options["lengths"])[:, None]).flatten().int().tolist()
    if "segments" in options and isinstance(options["segments"], tuple):
        queries, keys = (torch.as_tensor(ids) for ids in options["segments"])
        return (queries[:, :, None] == keys[:, None, :]).any(-1).flatten().int().tolist()
    mask = options.get("keep_mask")
    if mask is not None and offset is not None and mask.dim() == 4 and mask.shape[1] == mask.shape[2] == 1 and mask.shape[3] == kv_len:
        return mask[:, 0, 0, at.clamp(0, kv_len - 1)].flatten().int().tolist()
    return None


def _offset_of_segments(segments, q_len):
    """The number p for which query i stands at key i + p, the last query at the last key of its id; None: sequences differ."""
    if not isinstance(segments, tuple):
        return 0
    queries, keys = (torch.as_tensor(ids) for ids in segments)
    ends = ((queries[:, -1:] == keys) * torch.arange(1, keys.shape[1] + 1)).amax(-1).unique().tolist()
    return ends[0] - q_len if len(ends) == 1 else None


def _is_padded_on_the_left(options):
    """Whether segments tell one causal sequence from the padding before it, and not several sequences from each other."""
    return isinstance(options.get("segments"), tuple) and options.get("causal") == "bottom_right"


def _options_of_sums(options, rows, q_len):
    """The options of a pass over the rows that count, and those alone."""
    made = {**options, "drop_mask": ~torch.tensor(rows, dtype=torch.bool).reshape(-1, 1, q_len, 1)}
    if _is_padded_on_the_left(options):  # the same keys by their numbers
        made["causal"] = True
        queries, keys = (torch.as_tensor(ids) for ids in made.pop("segments"))
        seen = queries[:, -1:] == keys
        made["query_offset"] = ((seen * torch.arange(1, keys.shape[1] + 1)).amax(-1) - q_len).tolist()
        made["keep_mask"] = seen[:, None, None]
    return made


def _with_first_keys(request, options, kv_len):
    """(request, names): of bidirectional attention whose sequences begin after padding, classes of the keys counted from
    each sequence's first, in place of keys, which are counted from the first key."""
    mask = options.get("keep_mask")
    if mask is None or mask.dim() != 4 or mask.shape[1:3] != (1, 1) or mask.shape[3] != kv_len or "causal" in options:
        return request, ()
    first = mask[:, 0, 0].int().argmax(-1, keepdim=True)
    keys = [int(one) for one in request.keys]
    if not first.any() or not keys or len(keys) + len(request.classes or ()) > 32:
        return request, ()
    numbers = torch.arange(kv_len) - first
    masks = {f"key {place}: {one}": numbers == one for place, one in enumerate(keys)}
    return request._replace(classes={**(request.classes or {}), **masks}), tuple(masks)


def _take_first_keys(found, count):
    """The last classes as what they are: weights on keys."""
    plain = dict(found["plain"])
    masses = plain.pop("class_mass")
    plain["key_mass"] = masses[..., masses.shape[-1] - count:].contiguous()
    if masses.shape[-1] > count:
        plain["class_mass"] = masses[..., :-count].contiguous()
    found.update(plain=plain, classes=found["classes"][:-count])


class Recorder:
    """Between record() and the attention function of attn_implementation="multihead"."""

    def __init__(self, model, request, token_classes, weights, layers, kind):
        if not isinstance(model, PreTrainedModel):
            raise TypeError(f"record: model has type {type(model).__name__}; a model of Transformers is wanted")
        if not isinstance(request, StatisticsRequest):
            raise TypeError(f"record: request has type {type(request).__name__}; a StatisticsRequest is wanted")
        if request.norm_weighted or request.norms is not None:
            raise ValueError("record: request asks for norm_weighted, which needs each layer's output weight; it is not "
                             "known here. MultiHeadAttention and Encoder have it")
        taken = set(request.classes or ()) & set(token_classes)
        if taken:
            raise ValueError(f"record: {', '.join(sorted(taken))} is among token_classes and the request's classes")
        self._model, self._request, self._weights, self._layers, self._kind = model, request, bool(weights), layers, kind
        self._token_classes = {name: torch.as_tensor(ids).flatten() for name, ids in token_classes.items()}
        self._names = {id(module): name for name, module in model.named_modules()}
        self._ids = {}  # by name of a part of the model: what it reads in its present call
        self._step, self._inside, self._done = 0, 0, False
        self._open = []  # of each part of the model that runs: how many layers were recorded before it
        self._calls, self._unseen, self._elsewhere = 0, 0, 0

    @contextmanager
    def attached(self):
        """The model watched, with our attention. Warns, where no exception ends it, of calls that left nothing."""
        with ExitStack() as stack:
            stack.enter_context(_running_on_multihead(self._model))
            for name, module in self._model.named_modules():
                if not isinstance(module, PreTrainedModel):
                    continue
                hooks = [module.register_forward_pre_hook(self._opener(name), with_kwargs=True),
                         module.register_forward_hook(self._closer(name), always_call=True)]
                for hook in hooks:
                    stack.callback(hook.remove)
            yield
            implementations = {implementation for _, implementation in _implementations(self._model)}
        self._warn(implementations)

    def _warn(self, implementations):
        reason = None
        if self._unseen:
            reason = f"{self._unseen} of {self._calls} calls of the model were not recorded"
            if implementations != {NAME}:
                reason += (f"; its attention was set to {', '.join(sorted(map(repr, implementations - {NAME})))} within the "
                           f'block, and must stay "{NAME}" there')
        elif self._elsewhere and not self._layers:
            reason = ("nothing was recorded; the model was called from another thread, and only calls of the block's own "
                      "thread (its context) are recorded")
        if reason:
            warnings.warn(f"record: {reason}", RuntimeWarning, stacklevel=6)

    def _opener(self, name):
        def opened(module, arguments, named):
            if not self._is_mine():
                self._elsewhere += 1
                return
            self._open.append(len(self._layers))
            if name == "":
                self._begin_step()
                self._inside += 1
            self._ids[name] = _ids_of(arguments, named)

        return opened

    def _closer(self, name):
        def closed(module, arguments, output):
            if not self._is_mine():
                return
            self._ids.pop(name, None)
            before = self._open.pop() if self._open else 0
            if not self._open and output is not None:  # None: the call has raised
                self._calls += 1
                self._unseen += len(self._layers) == before
            if name == "" and self._inside:
                self._inside -= 1
                self._done = True

        return closed

    def _is_mine(self):
        return self in _recording.recorders.get()

    def _begin_step(self):
        """A pass begins with the model's call, or with a part of it that is called alone after one has ended."""
        if self._done and not self._inside:
            self._step += 1
            self._done = False

    def wants(self, module):
        return id(module) in self._names

    def _read_by(self, name):
        """The ids that the innermost part of the model around a module reads."""
        around = [part for part in self._ids if part == "" or name == part or name.startswith(part + ".")]
        return self._ids[max(around, key=len)] if around else None

    def request(self, module, query, key, options):
        """What is wanted of a call, and what add() is to say of it."""
        if not self._inside:
            self._begin_step()
        name = self._names[id(module)]
        q_len, kv_len = query.shape[2], key.shape[2]
        cross = getattr(module, "is_cross_attention", False) or any(part in name for part in _CROSS)
        asked = options
        if q_len != kv_len and not options.keys() & {"query_offset", "segments"}:  # where queries stand must be named
            asked = dict(options, query_offset=0 if cross else kv_len - q_len)
        offset = (_offset_of_segments(options["segments"], q_len) if "segments" in options
                  else query_offset_of(asked, q_len, kv_len))
        ids = self._read_by(name)
        if ids is not None and tuple(ids.shape) != (query.shape[0], q_len):
            ids = None
        known = ids is not None and not cross and q_len == kv_len
        request = self._request
        if request.tokens is True:
            request = request._replace(tokens=ids if known else None)
        if known and self._token_classes:
            masks = {part: torch.isin(ids, wanted) for part, wanted in self._token_classes.items()}
            request = request._replace(classes={**(request.classes or {}), **masks})
        rows = None if cross else _rows_that_count(options, q_len, kv_len, offset)
        said = {"module": name, "kind": "cross" if cross else "self", "step": self._step,
                "query_offset": None if cross else offset, "ids": ids, "rows": rows,
                "layer": sum(layer.step == self._step for layer in self._layers)}
        if cross:  # what stands at a query's position is a token of another text
            request = request._replace(offsets=())
        request, first_keys = _with_first_keys(request, options, kv_len)
        sums = None
        padded = _is_padded_on_the_left(options)  # by segments, whose rows share no bins in one pass
        if rows is not None and (request.received or request.bin) and (padded or not all(rows)):
            sums = (StatisticsRequest(offsets=(), keys=(), top=0, received=request.received, bin=request.bin),
                    _options_of_sums(asked, rows, q_len))
            request = request._replace(received=False, bin=0)
        return _recording.Call(request, self._weights, asked, said, sums, first_keys)

    def add(self, call, statistics, weights, sums):
        found = dict(statistics._found)
        if sums is not None:
            found.update(plain={**found["plain"], **{name: array for name, array in sums.arrays() if name in ("received", "map")}},
                         bin=sums.bin)
        if call.first_keys:
            _take_first_keys(found, len(call.first_keys))
        self._layers.append(self._kind(found, call.said, weights))

# SPDX-License-Identifier: Apache-2.0
"""The mask function of attn_implementation="multihead": masks that are ranges stay ranges.

Transformers describes a mask by a function of (batch, head, query, key) and by the padding mask of the call. Where the
function is one that Transformers itself builds for causal, windowed, bidirectional or packed attention, what it says is
read from it; every other one is evaluated into a boolean mask.
"""

import copy

from transformers import masking_utils

import torch

# The code objects by which functions that masking_utils builds are known.
_AND = masking_utils.and_masks().__code__
_WINDOW = masking_utils.sliding_window_overlay(1).__code__
_BIDIRECTIONAL_WINDOW = masking_utils.sliding_window_bidirectional_overlay(1).__code__
_PACKED = masking_utils.packed_sequence_mask_function(None).__code__
_REMAPPED = masking_utils.remap_positions_for_packed_sequence(None, None).__code__


class MaskOfRanges(torch.Tensor):
    """A boolean mask (batch, 1, q_len, kv_len), true where a key is seen, that is not in memory.

    options: what multihead.attention is told instead. Any operation of torch on it computes on the elements, which are
    then made for it, so that models may do with it what they do with masks. Elements that are written to, or seen through
    a view, are kept from then on: the mask is what they are, and options name them as keep_mask. A copy by copy.deepcopy
    is a mask of ranges; a pickled one comes back as an ordinary tensor.
    """

    @staticmethod
    def __new__(cls, shape, device, options, make):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bool, device=device)

    def __init__(self, shape, device, options, make):
        self.options = options
        self._make = make
        self._kept = None

    def elements(self):
        """The mask as an ordinary tensor: the kept elements, or new ones."""
        return self._make() if self._kept is None else self._kept

    def _keep(self):
        """Makes the elements, which may now be changed."""
        if self._kept is None:
            self._kept = self._make().expand(self.shape).clone()
            self.options = {"keep_mask": self._kept}

    def __repr__(self):
        return f"MaskOfRanges(shape={tuple(self.shape)}, options={sorted(self.options)})"

    def __deepcopy__(self, memo):
        made = MaskOfRanges(self.shape, self.device, copy.deepcopy(self.options, memo), self._make)
        if self._kept is not None:
            made._kept = made.options["keep_mask"]
        memo[id(self)] = made
        return made

    def __reduce_ex__(self, protocol):
        return self.elements().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        named = named or {}
        kept = []
        for place, described in enumerate(function._schema.arguments):
            if described.alias_info is None:
                continue  # only read
            value = arguments[place] if place < len(arguments) else named.get(described.name)
            kept += [part for part in (value if isinstance(value, (list, tuple)) else [value])
                     if isinstance(part, MaskOfRanges)]
        if kept and torch.Tag.inplace_view in function.tags:
            raise NotImplementedError(f"MaskOfRanges: {function} changes the shape of a mask in place; it must stay as it is")
        for mask in kept:
            mask._keep()

        def plain(value):
            if isinstance(value, MaskOfRanges):
                return value.elements()
            if isinstance(value, (list, tuple)):
                return type(value)(plain(item) for item in value)
            return value

        result = function(*map(plain, arguments), **{key: plain(value) for key, value in named.items()})
        return next((mask for mask in kept if mask._kept is result), result)


def _cell(function, name):
    return function.__closure__[function.__code__.co_freevars.index(name)].cell_contents


def _tighter(left, right):
    return right if left is None else left if right is None else min(left, right)


def _described(function):
    """{"causal", "window", "ids"} of a mask function that masking_utils built; None for any other.

    window is (keys before, keys after) or None for no bound; ids are those of packed sequences, or None.
    """
    code = getattr(function, "__code__", None)
    if function is masking_utils.causal_mask_function:
        return {"causal": True, "window": (None, None), "ids": None}
    if function is masking_utils.bidirectional_mask_function:
        return {"causal": False, "window": (None, None), "ids": None}
    if code is _WINDOW:
        return {"causal": False, "window": (_cell(function, "sliding_window") - 1, None), "ids": None}
    if code is _BIDIRECTIONAL_WINDOW:
        return {"causal": False, "window": (_cell(function, "sliding_window"),) * 2, "ids": None}
    if code is _AND:
        return _described_all(_cell(function, "mask_functions"))
    return None


def _described_all(functions):
    """The same of functions that must all hold."""
    if len(functions) == 2 and [getattr(part, "__code__", None) for part in functions] == [_REMAPPED, _PACKED]:
        # Positions inside a sequence, and the sequences: what segments mean.
        inside = _described(_cell(functions[0], "mask_function"))
        return inside and {**inside, "ids": _cell(functions[1], "packed_sequence_mask")}
    parts = [_described(part) for part in functions]
    if not parts or any(part is None or part["ids"] is not None for part in parts):
        return None
    windows = [part["window"] for part in parts]
    window = windows[0]
    for other in windows[1:]:
        window = (_tighter(window[0], other[0]), _tighter(window[1], other[1]))
    return {"causal": any(part["causal"] for part in parts), "window": window, "ids": None}


def _runs(padding):
    """(first, end) of the true elements of each row (batch, kv_len) where each row has one run of them, or None."""
    count = padding.sum(dim=-1)
    first = padding.to(torch.int8).argmax(dim=-1)
    places = torch.arange(padding.shape[-1], device=padding.device)
    end = first + count
    expected = (places >= first[:, None]) & (places < end[:, None])
    return (first, end) if bool((expected == padding).all()) else None


def _padding_options(padding, causal, offset, q_length):
    """Options that say a padding mask (batch, kv_len), true where a key is one; offset: of the first query."""
    if bool(padding.all()):
        return {}
    runs = _runs(padding)
    if runs is not None:
        first, end = runs
        if not bool(first.any()):
            return {"lengths": end}
        if causal and bool((end == offset + q_length).all()):
            # Padding on the left: the keys of a sequence are a segment whose last query meets its last key. Queries
            # before it belong to a segment without keys.
            keys = torch.arange(padding.shape[-1], device=padding.device)
            queries = torch.arange(q_length, device=padding.device) + offset
            kv_segments = (keys >= first[:, None]).long() + (keys >= end[:, None]).long()
            q_segments = torch.where(queries >= first[:, None], 1, 3)
            return {"segments": (q_segments, kv_segments), "causal": "bottom_right"}
    return {"keep_mask": padding[:, None, None, :]}


def _range_options(described, padding, q_length, kv_length, offset):
    """The options of multihead.attention for a description and a padding mask (batch, kv_len) or None."""
    options = {}
    if described["causal"]:
        options["causal"] = True
    if described["window"] != (None, None):
        options["window"] = described["window"]
    if described["ids"] is not None:
        return {**options, "segments": (described["ids"], described["ids"])}
    more = {} if padding is None else _padding_options(padding, described["causal"], offset, q_length)
    if options and "segments" not in more:
        options["query_offset"] = offset
    return {**options, **more}


def attention_mask(batch_size, q_length, kv_length, q_offset=0, kv_offset=0,
                   mask_function=masking_utils.causal_mask_function, attention_mask=None, device="cpu", **named):
    """What Transformers calls for the mask of a kind of layers: a MaskOfRanges, or a boolean tensor of every element.

    attention_mask: the padding mask (batch, kv_len + kv_offset or shorter), true where a token is one. The other
    arguments are those of transformers.masking_utils.sdpa_mask.
    """
    named.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)

    def make():
        return masking_utils.sdpa_mask(batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset,
                                       kv_offset=kv_offset, mask_function=mask_function, attention_mask=attention_mask,
                                       device=device, **named)

    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return make()
    described = _described(mask_function)
    if described is None:
        return make()
    if isinstance(q_offset, torch.Tensor):  # a static cache counts in a tensor, which it goes on counting in
        q_offset = int(q_offset)
    padding = masking_utils.prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is not None:
        padding = padding[:, kv_offset:kv_offset + kv_length].bool()
    if described["ids"] is not None and (padding is not None or q_length != kv_length):
        return make()
    options = _range_options(described, padding, q_length, kv_length, q_offset - kv_offset)
    return MaskOfRanges((batch_size, 1, q_length, kv_length), device, options, make)

# SPDX-License-Identifier: Apache-2.0
"""Encoder: models of the BERT family from their folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from . import _core
from ._statistics import Statistics
from ._types import Integers, Numbers, Precision, Products, StatisticsAsked, Target, Weights


class Token(NamedTuple):
    """A token of a text: text is the vocabulary's ("##ing"); begin and end are characters of the str, so that
    text[begin:end] is what it was made of; those that the tokenizer adds have begin == end."""

    id: int
    text: str
    begin: int
    end: int


@dataclass(frozen=True)
class EncoderExtents:
    """The extents of an encoder. max_tokens: of a sequence. texts: whether its folder has a tokenizer that is known."""

    layers: int
    heads: int
    head_dim: int
    model_dim: int
    intermediate_dim: int
    vocab_size: int
    token_types: int
    max_tokens: int
    texts: bool


class Encoder:
    """A bidirectional encoder (bert and what shares its form, roberta, xlm-roberta, distilbert).

    folder has config.json, weights as safetensors and, for texts, the files of a WordPiece tokenizer. precision:
    "bfloat16" and "float16" round every weight to that type as it is read. products: "bfloat16" multiplies in bfloat16,
    with sums, norms and all results in float32, and keeps weights in half the memory. Immutable: any number of threads
    may call it, copies are the encoder itself, and it is not pickled. Raises OSError (a file that is missing or breaks a
    rule of its format) and ValueError (a model that is not built, by its name).
    """

    __slots__ = ("_encoder",)
    _encoder: _core.Encoder

    def __init__(self, folder: str | bytes | os.PathLike[str] | os.PathLike[bytes], *, precision: Precision = "float32",
                 products: Products = "float32") -> None:
        try:
            name = os.fsencode(folder)
        except TypeError as error:
            kind = type(folder).__name__
            raise TypeError(f"Encoder: folder has type {kind}; a str, bytes or os.PathLike is wanted") from error
        except UnicodeEncodeError as error:
            raise ValueError(f"Encoder: folder is {folder!r}, which is the name of no file") from error
        self._encoder = _core.Encoder.open(name, precision, products)

    def __copy__(self) -> Encoder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("Encoder: an encoder cannot be pickled; pass the name of its folder on and open it there")

    @property
    def extents(self) -> EncoderExtents:
        """The extents of the encoder."""
        return EncoderExtents(**self._encoder.extents)

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text, with those that the tokenizer adds at its ends; offsets count characters of the str."""
        return [Token(*token) for token in self._encoder.tokens(text)]

    def encode(self, texts: str | Sequence[str], *, threads: int | None = None, target: Target | str | None = None) -> Any:
        """Sentences to vectors (n, model_dim) float32, as sentence-transformers computes them: the mean over tokens, of
        length 1 where the folder says so. A str is one sentence: (1, model_dim).

        A sentence's bits do not depend on the others. Raises TypeError, and ValueError where the folder has no tokenizer
        that is known, or a text the character 0.
        """
        return self._encoder.encode([texts] if isinstance(texts, str) else list(texts), threads, target)

    def __call__(self, ids: Integers, cu_seqlens: Integers | None = None, token_types: Integers | None = None, *,
                 return_hidden_states: bool = False, return_weights: Weights | list[Weights] = None,
                 return_norms: bool = False, return_statistics: StatisticsAsked | list[StatisticsAsked] = None,
                 gates: Numbers | None = None, threads: int | None = None, target: Target | str | None = None) -> Any:
        """The states after the last layer (tokens, model_dim) float32; with requests (output, hidden states, weights,
        norms, statistics) of those that were asked for.

        ids (tokens) of sequences packed one after the other; cu_seqlens (sequences + 1) their starts and the end, None:
        one sequence; token_types (tokens), None: zeros.
        return_hidden_states   (layers + 1, tokens, model_dim): the embeddings, then after each layer
        return_weights         one array a layer: True (heads, tokens, tokens), "mean" (tokens, tokens), a WeightsRequest, or
                               a list of these, one a layer, None for a layer without; keys of other sequences weigh 0
        return_norms           (layers, heads, tokens), as MultiHeadAttention gives them: what norm_weighted is weighted with
        return_statistics      one Statistics a layer, heads by heads: True, a StatisticsRequest, or a list of these; keys
                               and tokens count along all tokens for received and top_keys, otherwise from a sequence's first
        gates                  (layers, heads) multiplied onto the heads' outputs: 0 takes a head out
        Raises TypeError and ValueError (an id that is none, a sequence that is too long); then nothing was written.
        """
        wants = (cu_seqlens, token_types, return_hidden_states, return_weights, threads, target, gates, return_statistics,
                 return_norms)
        results = self._encoder.forward(ids, wants)
        if return_statistics is None or return_statistics is False:
            return results
        *others, found = results
        return (*others, tuple(None if layer is None else Statistics(layer) for layer in found))

    def __repr__(self) -> str:
        extents = self.extents
        return f"Encoder(layers={extents.layers}, heads={extents.heads}, model_dim={extents.model_dim})"

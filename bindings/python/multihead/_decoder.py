# SPDX-License-Identifier: Apache-2.0
"""Decoder: models of GPT-2's and Llama's families from their folders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from . import _core
from ._byte_pair import BytePair, Path, named
from ._cache import KvCache, Sequences, Storage
from ._types import Integers, Precision, Products, Target


@dataclass(frozen=True)
class DecoderExtents:
    """The extents of a decoder. max_tokens: of a sequence."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    model_dim: int
    intermediate_dim: int
    vocab_size: int
    max_tokens: int


class Decoder:
    """A causal decoder (gpt2, llama), which tells how likely each token is to come next.

    folder has config.json and weights as safetensors, in one file or several. precision: "bfloat16" and "float16" round
    every weight to that type as it is read. products: "bfloat16" multiplies in bfloat16, with sums, norms, hidden states
    and logits in float32, and keeps weights in half the memory; the cache says in what attention multiplies. Immutable: any number of threads may call it, each on sequences of its own;
    copies are the decoder itself, and it is not pickled. Raises OSError (a file that is missing or breaks a rule of its
    format) and ValueError (a model that is not built, by its name).
    """

    __slots__ = ("_decoder", "_folder", "_tokenizer")
    _decoder: _core.Decoder
    _folder: bytes
    _tokenizer: BytePair | None

    def __init__(self, folder: Path, *, precision: Precision = "float32", products: Products = "float32") -> None:
        self._folder = named("Decoder", "folder", folder)
        self._decoder = _core.Decoder.open(self._folder, precision, products)
        self._tokenizer = None

    def __copy__(self) -> Decoder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Decoder:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("Decoder: a decoder cannot be pickled; pass the name of its folder on and open it there")

    @property
    def extents(self) -> DecoderExtents:
        """The extents of the decoder."""
        return DecoderExtents(**self._decoder.extents)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The ids that end a text, as the folder says."""
        return tuple(self._decoder.end_ids)

    @property
    def begin_id(self) -> int | None:
        """The id that stands for a prompt without tokens, where the folder names one."""
        return self._decoder.begin_id

    @property
    def unused_tensors(self) -> tuple[str, ...]:
        """Tensors of the folder that are no part of the decoder."""
        return tuple(self._decoder.unused_tensors)

    @property
    def tokenizer(self) -> BytePair:
        """The tokenizer of the folder, opened when it is first asked for."""
        if self._tokenizer is None:
            self._tokenizer = BytePair(self._folder)
        return self._tokenizer

    def cache(self, positions: int, *, storage: Storage = "float32") -> KvCache:
        """A KvCache for this decoder with room for so many tokens in all, of all sequences, in pages of 128."""
        if isinstance(positions, bool) or not hasattr(positions, "__index__"):
            raise TypeError(f"Decoder.cache: positions has type {type(positions).__name__}; an integer is wanted")
        if positions < 1:
            raise ValueError(f"Decoder.cache: positions is {positions}; it must be at least 1")
        extents = self.extents
        return KvCache(extents.kv_heads, extents.head_dim, layers=extents.layers, pages=-(-positions // 128),
                       page_len=128, storage=storage)

    def forward(self, ids: Integers, cache: KvCache, sequences: Sequences, cu_seqlens: Integers | None = None, *,
                all_tokens: bool = False, return_hidden_states: bool = False, threads: int | None = None,
                target: Target | str | None = None) -> Any:
        """The logits after the last new token of each sequence (sequences, vocab_size) float32; with all_tokens after each
        new token (tokens, vocab_size); with return_hidden_states a pair with (layers + 1, tokens, model_dim): the
        embeddings, then after each layer.

        ids (tokens) of the sequences' new tokens, one sequence after the other: prompts, parts of prompts, single tokens.
        cu_seqlens (sequences + 1) says where each begins and the last one ends; None: one sequence. Their keys and values
        are appended to cache, which cache() made. A token's bits do not depend on the other sequences, on how its own was
        cut into calls, or on threads. Raises TypeError, ValueError (an id that is none, a sequence that grows too long,
        another decoder's cache) and MemoryError (the free pages do not suffice); the cache is then as it was.
        """
        if not isinstance(cache, KvCache):
            raise TypeError(f"Decoder: cache has type {type(cache).__name__}; a KvCache is wanted")
        wants = (cu_seqlens, all_tokens, return_hidden_states, threads, target)
        return self._decoder.forward(ids, cache._cache, sequences, wants)

    def __repr__(self) -> str:
        extents = self.extents
        return (f"Decoder(layers={extents.layers}, heads={extents.heads}, model_dim={extents.model_dim}, "
                f"vocab_size={extents.vocab_size})")

# SPDX-License-Identifier: Apache-2.0
"""generate and Generator: texts that a decoder goes on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, NoReturn, overload

from . import _core
from ._byte_pair import BytePair, Path
from ._cache import Storage
from ._decoder import Decoder
from ._types import Integers, Target

Finish = Literal["end", "stop", "length"]
_TOGETHER = 8  # prompts that the cache of generate() has room for at once
_PAGE = 128


class Generated(NamedTuple):
    """A new token of a request. text: what is now whole letters and no part of a stop text; a letter that a token cuts in
    its middle comes with the one that ends it. finish: why the text ended, None while it goes on: "end" a token that ends
    texts, "stop" a stop text, "length" the number of tokens."""

    request: int
    id: int
    text: str
    finish: Finish | None


def _check_decoder(name: str, decoder: object, tokenizer: object) -> None:
    if not isinstance(decoder, Decoder):
        raise TypeError(f"{name}: decoder has type {type(decoder).__name__}; a Decoder is wanted")
    if tokenizer is not None and not isinstance(tokenizer, BytePair):
        raise TypeError(f"{name}: tokenizer has type {type(tokenizer).__name__}; a BytePair is wanted")


class Generator:
    """Texts that go on together: add() names a prompt, each step() feeds the next token of every text that speaks and, of
    the others, prompt_tokens of their prompts.

        generator = Generator(decoder)
        generator.add("Once upon a time", max_tokens=20)
        for token in generator:
            print(token.text, end="", flush=True)

    positions   of the cache, for all requests together, in pages of 128; a request waits until there is room for all that
                it may become, in the order of coming
    storage     what keys and values are kept as
    tokenizer   that of the decoder's folder unless given
    A request's text depends on its prompt, options, decoder and storage alone: not on the others, on when it was added, on
    prompt_tokens or threads. Threads may share a generator: each waits for the others.
    """

    __slots__ = ("_generator",)
    _generator: _core.Generator

    def __init__(self, decoder: Decoder, *, tokenizer: BytePair | None = None, positions: int = 4096,
                 storage: Storage = "float32", prompt_tokens: int = 512, threads: int | None = None,
                 target: Target | str | None = None) -> None:
        _check_decoder("Generator", decoder, tokenizer)
        pairs = (decoder.tokenizer if tokenizer is None else tokenizer)._pairs
        call = (positions, storage, prompt_tokens, threads, target)
        self._generator = _core.Generator.create(decoder._decoder, pairs, call)

    def __reduce__(self) -> NoReturn:  # what copy, deepcopy and pickle ask
        raise TypeError("Generator: a generator cannot be copied")

    def add(self, prompt: str | Integers, *, max_tokens: int = 128, temperature: float = 0.0, top_k: int | None = None,
            top_p: float | None = None, seed: int = 0, stop: str | Sequence[str] = ()) -> int:
        """Adds a prompt, a text or ids, and gives its request's number: 0, 1, 2 ..

        max_tokens    new tokens, at least 1; fewer where the decoder has no more positions
        temperature   logits are divided by it before a token is drawn; 0: the likeliest token each time
        top_k, top_p  only so many tokens, the likeliest; of those only the likeliest that together have this much
        seed          what is drawn is the same for the same seed
        stop          texts that end it, and are left out
        Raises TypeError and ValueError.
        """
        if not isinstance(stop, str) and not isinstance(stop, Sequence):
            raise TypeError(f"Generator: stop has type {type(stop).__name__}; a str or a list of them is wanted")
        if isinstance(prompt, (bytes, bytearray)):
            raise TypeError(f"Generator: prompt has type {type(prompt).__name__}; a str or a list of ids is wanted")
        stops = [stop] if isinstance(stop, str) else list(stop)
        return self._generator.add(prompt, (max_tokens, temperature, top_k, top_p, seed, stops))

    def cancel(self, request: int) -> None:
        """Ends a request; does nothing to one that has ended."""
        self._generator.cancel(request)

    @property
    def done(self) -> bool:
        """Whether no request is left."""
        return self._generator.done

    def step(self) -> list[Generated]:
        """The new tokens, in ascending order of requests; those whose prompts are not read yet have none."""
        return [Generated(*token) for token in self._generator.step()]

    def __iter__(self) -> Iterator[Generated]:
        """Steps until no request is left; more may be added meanwhile."""
        while not self.done:
            yield from self.step()


def _ids_of(prompt: str | Integers, tokenizer: BytePair) -> Integers:
    return tokenizer.encode(prompt) if isinstance(prompt, str) else prompt


def _is_one(prompts: object) -> bool:
    """Whether prompts are one: a text, or ids."""
    if isinstance(prompts, str):
        return True
    if not hasattr(prompts, "__len__") or not hasattr(prompts, "__getitem__") or isinstance(prompts, (bytes, dict)):
        raise TypeError(f"generate: prompts has type {type(prompts).__name__}; a str, or a list of them, is wanted")
    return len(prompts) > 0 and getattr(prompts[0], "shape", ()) == () and hasattr(prompts[0], "__index__")


@overload
def generate(decoder: Decoder | Path, prompts: str, *,  # type: ignore[overload-overlap]  # a str is a Sequence[str]
             tokenizer: BytePair | None = None, max_tokens: int = 128,
             temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None, seed: int = 0,
             stop: str | Sequence[str] = (), on_token: Callable[[Generated], object] | None = None,
             storage: Storage = "float32", positions: int | None = None, threads: int | None = None,
             target: Target | str | None = None) -> str: ...


@overload
def generate(decoder: Decoder | Path, prompts: Sequence[str] | Sequence[Sequence[int]], *,
             tokenizer: BytePair | None = None, max_tokens: int = 128, temperature: float = 0.0,
             top_k: int | None = None, top_p: float | None = None, seed: int = 0, stop: str | Sequence[str] = (),
             on_token: Callable[[Generated], object] | None = None, storage: Storage = "float32",
             positions: int | None = None, threads: int | None = None,
             target: Target | str | None = None) -> list[str]: ...


def generate(decoder: Decoder | Path, prompts: str | Sequence[str] | Sequence[Sequence[int]], *,
             tokenizer: BytePair | None = None, max_tokens: int = 128, temperature: float = 0.0,
             top_k: int | None = None, top_p: float | None = None, seed: int = 0, stop: str | Sequence[str] = (),
             on_token: Callable[[Generated], object] | None = None, storage: Storage = "float32",
             positions: int | None = None, threads: int | None = None,
             target: Target | str | None = None) -> str | list[str]:
    """The text that follows a prompt, or one for each of several, which go on together.

    decoder is a Decoder, or the folder of one; a prompt is a text or ids. on_token is called with each Generated token as
    it comes. positions of the cache: what 8 prompts may become unless given. The other options are those of Generator
    and Generator.add(). A prompt's text is the same in any company. Raises TypeError, ValueError and OSError.
    """
    opened = decoder if isinstance(decoder, Decoder) else Decoder(decoder)
    _check_decoder("generate", opened, tokenizer)
    pairs = opened.tokenizer if tokenizer is None else tokenizer
    one = _is_one(prompts)
    all_ids = [_ids_of(prompt, pairs) for prompt in ([prompts] if one else prompts)]
    if not all_ids:
        return []
    if positions is None:
        most = opened.extents.max_tokens
        longest = max([1, *(len(ids) for ids in all_ids if hasattr(ids, "__len__"))])
        new = max(1, min(max_tokens, most)) if hasattr(max_tokens, "__index__") else 1
        each = min(longest + new, most)
        positions = -(-each // _PAGE) * _PAGE * min(len(all_ids), _TOGETHER)
    generator = Generator(opened, tokenizer=pairs, positions=positions, storage=storage, threads=threads, target=target)
    for ids in all_ids:
        generator.add(ids, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stop)
    texts = [""] * len(all_ids)
    for token in generator:
        texts[token.request] += token.text
        if on_token is not None:
            on_token(token)
    return texts[0] if one else texts

# SPDX-License-Identifier: Apache-2.0
"""BytePair: the byte-level tokenizers of GPT-2 and Llama 3."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn, Union

from . import _core
from ._types import Integers

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

Path: TypeAlias = "Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]"


def named(function: str, argument: str, path: Path) -> bytes:
    """The bytes of a file's name."""
    try:
        return os.fsencode(path)
    except TypeError as error:
        kind = type(path).__name__
        raise TypeError(f"{function}: {argument} has type {kind}; a str, bytes or os.PathLike is wanted") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"{function}: {argument} is {path!r}, which is the name of no file") from error


class BytePair:
    """A byte-level tokenizer by pairs: every text has tokens, and its tokens give it back.

    path is a tokenizer.json, or the folder that has one. Immutable: any number of threads may use it, copies are the
    tokenizer itself, and it is not pickled. Raises OSError (a file that is missing or breaks a rule of its format) and
    ValueError (a tokenizer that is not built, by the name of what is).
    """

    __slots__ = ("_pairs",)
    _pairs: _core.BytePair

    def __init__(self, path: Path) -> None:
        name = named("BytePair", "path", path)
        if b"\0" not in name and os.path.isfile(name):
            with open(name, "rb") as file:
                self._pairs = _core.BytePair.parse(file.read(), name)
        else:
            self._pairs = _core.BytePair.open(name)

    def __copy__(self) -> BytePair:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> BytePair:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("BytePair: a tokenizer cannot be pickled; pass the name of its file on and open it there")

    def __len__(self) -> int:
        return self._pairs.size

    @property
    def vocab_size(self) -> int:
        """Ids are 0 to vocab_size - 1; some may have no token."""
        return self._pairs.size

    def encode(self, text: str | bytes, *, added: bool = True) -> list[int]:
        """The ids of a text, or of bytes that need not be one. added: with those that the tokenizer puts around it."""
        return self._pairs.encode(text, added)

    def decode(self, ids: Integers, *, special: bool = True) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD. special: that of special tokens too."""
        return self._pairs.decode(ids, special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Integers, *, special: bool = True) -> bytes:
        """The bytes of ids, one token after the other: those that encode() was given."""
        return self._pairs.decode(ids, special)

    def token(self, id: int) -> bytes:
        """The bytes of a token. Raises ValueError for an id that no token has."""
        return self._pairs.token(id)

    def find(self, token: str | bytes) -> int | None:
        """The id of the token that is this text."""
        return self._pairs.find(token)

    def is_token(self, id: int) -> bool:
        """Whether an id has a token."""
        return self._pairs.is_token(id)

    def is_special(self, id: int) -> bool:
        """Whether a token is special, such as the one that ends a text."""
        return self._pairs.is_special(id)

    def __repr__(self) -> str:
        return f"BytePair(vocab_size={self.vocab_size})"

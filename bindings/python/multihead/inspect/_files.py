# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced only when what comes in their place is complete."""

from __future__ import annotations

import os
import secrets
import shutil


def ending_of(path: str | os.PathLike[str], known: tuple[str, ...], function: str) -> str:
    """The ending of a file's name, one of those that are known."""
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in known:
        raise ValueError(f'{function}: path ends in "{ending}"; {", ".join(known[:-1])} or {known[-1]} is wanted')
    return ending


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes to a file beside, then renames it; what is no plain file (a pipe, a device) is written to as it is."""
    name = os.path.realpath(path)
    if os.path.exists(name) and not os.path.isfile(name):
        with open(path, "wb") as file:
            file.write(data)
        return
    beside = f"{name}.{secrets.token_hex(4)}.part"
    try:
        with open(beside, "xb") as file:
            file.write(data)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, os.fspath(path)) from None
    except BaseException:
        if os.path.exists(beside):
            os.remove(beside)
        raise
    try:
        if os.path.exists(name):
            shutil.copymode(name, beside)
        os.replace(beside, name)
    except BaseException:
        os.remove(beside)
        raise

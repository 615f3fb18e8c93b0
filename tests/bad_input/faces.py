# SPDX-License-Identifier: Apache-2.0
"""The table of bad input, and what every face's answer to a case is held to."""

import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import tiny_encoder  # noqa: E402

TABLE = json.loads((pathlib.Path(__file__).resolve().parent / "table.json").read_text(encoding="utf-8"))
CANNOT = "cannot be said"


def write_models(folder):
    """The folders that the encoder's cases name, but the one that is not there."""
    for name in ("tiny", "empty"):
        (folder / name).mkdir()
    tiny_encoder.write(folder / "tiny")


def merged(base, change):
    """JSON merge patch (RFC 7396)."""
    if not isinstance(change, dict):
        return change
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def cases(call, face):
    """Each case of a call: (what is expected of this face, the whole call)."""
    entry = TABLE[call]
    for case in entry["cases"]:
        change = {key: value for key, value in case.items() if key not in ("name", "status", "says", "faces")}
        yield {**case, **case.get("faces", {}).get(face, {})}, merged(entry["base"], change)


def faults(case, status, sentence, written):
    """What is wrong with an answer, in words; an empty list for a right one. status None: any that is not ok."""
    found = []
    if case["status"] == "ok":
        return found if status == "ok" else [f"refused: {status}: {sentence}"]
    if status == "ok":
        return ["it was accepted"]
    if status is not None and status != case["status"]:
        found.append(f"status {status}, expected {case['status']}")
    found += [f"'{word}' is not in the sentence: {sentence}" for word in case["says"]
              if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", sentence, re.IGNORECASE)]
    if written:
        found.append("an output was written")
    return found

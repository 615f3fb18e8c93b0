# SPDX-License-Identifier: Apache-2.0
"""What a page holds, read back from its text: its JSON, and the weights of a head from their block of bytes."""

import base64
import json
import re
import zlib

import numpy as np


def blocks(page):
    """{id: text} of the page's blocks of data."""
    return dict(re.findall(r'<script type="application/[\w-]+" id="([^"]+)">(.*?)</script>', page, re.DOTALL))


def meta(page):
    return json.loads(blocks(page)["meta"])


def norms(page, layer, head):
    """(kv_len): what the head's weights are multiplied by."""
    return np.frombuffer(zlib.decompress(base64.b64decode(blocks(page)[f"n{layer}.{head}"])), "<f4")


def weights(page, layer, head):
    """(q_len, kv_len) of a page that shows them in full: 16 bits of their square roots, the high bytes first."""
    said = meta(page)
    packed = zlib.decompress(base64.b64decode(blocks(page)[f"p{layer}.{head}"]))
    high, low = np.frombuffer(packed, np.uint8).astype(np.int64).reshape(2, -1)
    return ((high * 256 + low) / 65534).reshape(said["q_len"], said["kv_len"]) ** 2

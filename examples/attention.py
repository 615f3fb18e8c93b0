# SPDX-License-Identifier: Apache-2.0
"""A decoder's two calls in NumPy: all queries of a prompt at once, then one more query against all keys so far."""

import numpy as np

from multihead import attention

draw = np.random.default_rng(7)
batch, heads, kv_heads, length, head_dim = 1, 8, 2, 100, 64

q = draw.standard_normal((batch, heads, length, head_dim), dtype=np.float32)
k = draw.standard_normal((batch, kv_heads, length, head_dim), dtype=np.float32)
v = draw.standard_normal((batch, kv_heads, length, head_dim), dtype=np.float32)

prompt = attention(q, k, v, causal=True)
last = attention(q[:, :, -1:], k, v, causal="bottom_right")

print(f"prompt {prompt.shape}, one more query {last.shape}, equal bits: {(prompt[:, :, -1:] == last).all()}")

# SPDX-License-Identifier: Apache-2.0
"""KvCache beside PyTorch: tensors go in, tensors come out."""

import unittest

import torch

from multihead import KvCache, attention


class Tensors(unittest.TestCase):
    def test_attention_and_rows(self):
        cache = KvCache(kv_heads=2, head_dim=6, value_dim=5, pages=4, page_len=32, storage="bfloat16")
        name = cache.add()
        generator = torch.Generator().manual_seed(1)
        q, k, v = (torch.randn(1, heads, length, width, generator=generator).bfloat16()
                   for heads, length, width in ((4, 1, 6), (2, 50, 6), (2, 50, 5)))
        cache.append(0, name, k, v)
        out = cache.attention(q, 0, name)
        self.assertTrue(torch.equal(out, attention(q, k, v)))
        read = torch.empty_like(k[0]), torch.empty_like(v[0])
        self.assertIs(cache.read(0, name, out=read)[0], read[0])
        self.assertTrue(torch.equal(read[0], k[0]) and torch.equal(read[1], v[0]))


if __name__ == "__main__":
    unittest.main()

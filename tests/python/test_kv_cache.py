# SPDX-License-Identifier: Apache-2.0
"""KvCache of Python: attention over it against attention() over the same rows, its sequences, files and refusals."""

import copy
import os
import pickle
import tempfile
import threading
import unittest

import numpy as np

from multihead import KvCache, attention

KV_HEADS, HEADS, DIM, VALUE_DIM = 2, 4, 6, 5


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def made(**more):
    return KvCache(**{"kv_heads": KV_HEADS, "head_dim": DIM, "value_dim": VALUE_DIM, "pages": 20, "page_len": 32, **more})


def filled(lengths=(40, 7, 100), dtype=np.float32, **more):
    """A cache, its sequences, and keys and values of each."""
    cache = made(**more)
    names, rows = [], []
    for seed, length in enumerate(lengths):
        k, v = draw(1, KV_HEADS, length, DIM, seed=seed, dtype=dtype), draw(1, KV_HEADS, length, VALUE_DIM, seed=seed + 9, dtype=dtype)
        names.append(cache.add())
        cache.append(0, names[-1], k, v)
        rows.append((k, v))
    return cache, names, rows


class Attention(unittest.TestCase):
    def test_has_the_bits_of_attention_over_the_same_rows(self):
        for dtype in (np.float32, np.float16):
            cache, names, rows = filled(dtype=dtype, storage=np.dtype(dtype).name)
            q = draw(3, HEADS, 1, DIM, dtype=dtype)
            out, lse = cache.attention(q, 0, names, return_lse=True)
            self.assertEqual((out.shape, out.dtype, lse.dtype), ((3, HEADS, 1, VALUE_DIM), dtype, np.float32))
            for s, (k, v) in enumerate(rows):
                wanted, wanted_lse = attention(q[s:s + 1], k, v, return_lse=True)
                np.testing.assert_array_equal(out[s:s + 1], wanted)
                np.testing.assert_array_equal(lse[s:s + 1], wanted_lse)

    def test_takes_ragged_queries_and_the_options_of_attention(self):
        cache, names, rows = filled()
        q = draw(1, HEADS, 9, DIM)
        bounds = [0, 1, 4, 9]
        options = {"causal": True, "softcap": 2.0, "window": 30, "alibi_slopes": [0.5, 0.25, 0.1, 0]}
        out = cache.attention(q, 0, names, cu_seqlens=bounds, **options)
        for s, (k, v) in enumerate(rows):
            part = slice(bounds[s], bounds[s + 1])
            wanted = attention(q[:, :, part], k, v, **{**options, "causal": "bottom_right"})
            np.testing.assert_array_equal(out[:, :, part], wanted)

    def test_takes_the_other_layout_an_out_and_one_sequence(self):
        cache, names, rows = filled()
        q = draw(1, 3, HEADS, DIM)
        out = np.empty((1, 3, HEADS, VALUE_DIM), np.float32)
        self.assertIs(cache.attention(q, 0, names[0], layout="bshd", out=out, causal=True), out)
        k, v = (x.swapaxes(1, 2) for x in rows[0])
        np.testing.assert_array_equal(out, attention(q, k, v, layout="bshd", causal="bottom_right"))
        np.testing.assert_array_equal(cache.attention(q[0], 0, names[0], layout="bshd", causal=True), out[0])

    def test_of_int8_is_near(self):
        cache, names, rows = filled(storage="int8")
        q = draw(3, HEADS, 1, DIM)
        out = cache.attention(q, 0, names)
        for s, (k, v) in enumerate(rows):
            np.testing.assert_allclose(out[s:s + 1], attention(q[s:s + 1], k, v), atol=0.03)
        scales = np.full((1, KV_HEADS, DIM), 0.04, np.float32), np.full((1, KV_HEADS, VALUE_DIM), 0.04, np.float32)
        cache, names, rows = filled(storage="int8", scales="per_channel", k_scales=scales[0], v_scales=scales[1])
        k, v = cache.read(0, names[0], 3, 5)
        np.testing.assert_allclose(k, rows[0][0][0, :, 3:8], atol=0.0201)
        np.testing.assert_allclose(v, rows[0][1][0, :, 3:8], atol=0.0201)

    def test_slides(self):
        cache, whole = made(window=40, first=3, pages=5), made()
        name, other = cache.add(), whole.add()
        for step in range(20):
            k, v = draw(1, KV_HEADS, 11, DIM, seed=step), draw(1, KV_HEADS, 11, VALUE_DIM, seed=step)
            q = draw(1, HEADS, 11, DIM, seed=step)
            cache.append(0, name, k, v)
            whole.append(0, other, k, v)
            options = {"causal": True, "window": 40, "window_first": 3}
            np.testing.assert_array_equal(cache.attention(q, 0, name, **options), whole.attention(q, 0, other, **options))
        self.assertEqual(cache.given_back(name)[0], 32)
        with self.assertRaisesRegex(ValueError, "window.left is -1, the cache's window is 40"):
            cache.attention(q, 0, name)


class Sequences(unittest.TestCase):
    def test_fork_truncate_and_remove(self):
        cache, names, rows = filled()
        self.assertEqual((cache.sequences, cache.free_pages), (3, 13))
        fork = cache.fork(names[0], 33)
        self.assertEqual((cache.length(fork), cache.free_pages), (33, 13))
        cache.append(0, fork, rows[1][0], rows[1][1])
        self.assertEqual(cache.free_pages, 12)
        k, v = cache.read(0, fork)
        np.testing.assert_array_equal(k, np.concatenate([rows[0][0][0, :, :33], rows[1][0][0]], axis=1))
        np.testing.assert_array_equal(v, np.concatenate([rows[0][1][0, :, :33], rows[1][1][0]], axis=1))
        np.testing.assert_array_equal(cache.read(0, names[0])[0], rows[0][0][0])
        cache.truncate(fork, 5)
        self.assertEqual((cache.length(fork), cache.free_pages), (5, 13))
        for name in (*names, fork):
            cache.remove(name)
        self.assertEqual((cache.sequences, cache.free_pages), (0, 20))

    def test_ragged_rows_are_appended(self):
        cache = made(layers=2)
        names = [cache.add(), cache.add()]
        k, v = draw(1, 9, KV_HEADS, DIM), draw(1, 9, KV_HEADS, VALUE_DIM)
        cache.append(1, names, k, v, cu_seqlens=[0, 2, 9], layout="bshd")
        self.assertEqual([cache.length(name, 1) for name in names], [2, 7])
        self.assertEqual([cache.length(name) for name in names], [0, 0])
        np.testing.assert_array_equal(cache.read(1, names[1])[0], k[0, 2:].swapaxes(0, 1))

    def test_come_back_from_a_file(self):
        cache, names, _ = filled(storage="int8")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "sequence.safetensors")
            cache.save(path, names[2])
            other = made(storage="int8", page_len=64)
            loaded = other.load(path)
            for got, wanted in zip(other.read(0, loaded), cache.read(0, names[2])):
                np.testing.assert_array_equal(got, wanted)
            with self.assertRaisesRegex(ValueError, "storage is int8"):
                made().load(path)
            with self.assertRaises(OSError):
                other.load(os.path.join(folder, "none"))

    def test_threads_that_change_it_wait_for_each_other(self):
        cache, names, _ = filled(lengths=(30,), pages=400)
        faults = []

        def grow(seed):
            try:
                name = cache.fork(names[0])
                for step in range(50):
                    cache.append(0, name, draw(1, KV_HEADS, 1, DIM, seed=seed), draw(1, KV_HEADS, 1, VALUE_DIM, seed=seed))
                    cache.attention(draw(1, HEADS, 1, DIM), 0, name)
                if cache.length(name) != 80:
                    faults.append(cache.length(name))
                cache.remove(name)
            except Exception as error:
                faults.append(error)

        threads = [threading.Thread(target=grow, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(faults, [])
        self.assertEqual(cache.free_pages, 399)


class Refusals(unittest.TestCase):
    def refused(self, kind, words, call, *arguments, **named):
        with self.assertRaisesRegex(kind, words):
            call(*arguments, **named)

    def test_name_argument_value_and_rule(self):
        self.refused(ValueError, "KvCache: page_len is 33; it must be a multiple of 32", made, page_len=33)
        self.refused(ValueError, 'KvCache: storage is .int4.; one of "float32"', made, storage="int4")
        self.refused(ValueError, "KvCache: window is -1", made, window=-1)
        self.refused(ValueError, "KvCache: value_dim is 0", made, value_dim=0)
        self.refused(TypeError, "KvCache: pages", made, pages=1.5)
        cache, names, rows = filled(pages=7)
        k, v = rows[0]
        before = cache.free_pages
        self.refused(MemoryError, "KvCache.append: 2 pages are wanted, 0 are free", cache.append, 0, names[2],
                     np.concatenate([k, k], 2), np.concatenate([v, v], 2))
        self.refused(ValueError, "KvCache.append: layer is 1", cache.append, 1, names[0], k, v)
        self.refused(ValueError, "none of this cache", cache.append, 0, 0, k, v)
        self.refused(ValueError, "none of this cache", made().length, names[0])
        self.refused(ValueError, "named twice", cache.append, 0, [names[0]] * 2, np.concatenate([k, k]), np.concatenate([v, v]))
        self.refused(ValueError, "k and v are float16, the cache holds float32", cache.append, 0, names[0],
                     k.astype(np.float16), v.astype(np.float16))
        self.refused(TypeError, "k has type float64", cache.append, 0, names[0], k.astype(np.float64), v.astype(np.float64))
        self.refused(ValueError, "v has rank 3, k has rank 4", cache.append, 0, names[0], k, v[0])
        self.refused(ValueError, "KvCache.fork: length is -1", cache.fork, names[0], -1)
        self.refused(ValueError, "KvCache.truncate: length is 41", cache.truncate, names[0], 41)
        self.refused(ValueError, "first is 39, k has 2 positions", cache.read, 0, names[0], 39, 2)
        self.refused(TypeError, "out is ndarray; a pair", cache.read, 0, names[0], out=k)
        self.refused(ValueError, "lengths", cache.attention, draw(1, HEADS, 1, DIM), 0, names[0], lengths=[3])
        self.assertEqual(cache.free_pages, before)

    def test_a_cache_is_not_copied(self):
        for call in (copy.copy, copy.deepcopy, pickle.dumps):
            self.refused(TypeError, "cannot be copied", call, made())
        self.assertEqual(repr(made()), "KvCache(kv_heads=2, head_dim=6, layers=1, storage='float32', pages=20, page_len=32)")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""self_attention and multi_head_attention: the example of the README, what a student passes, the caller's out, weights."""

import unittest

import numpy as np
from reference import draw

from multihead import multi_head_attention, self_attention

X = np.array([[1, 0, 1], [0, 1, 1]])
Wq = np.array([[1.2, .3, -.5, .4, 1.1, .2], [-.4, 1.5, .6, 1.3, -.2, .5], [.6, -.1, .8, -.3, .2, -.7]])
Wk = np.array([[1.4, -.6, .2, 1., -.8, .3], [-.7, 1.1, .9, -.5, 1.2, .1], [.3, .2, -.4, .2, .4, -.6]])
Wv = np.array([[.5, -.2, 1., .3, .8, -.4], [-.3, .9, .1, -.6, .2, .7], [.2, .4, -.5, .9, -.1, .6]])
Wo = np.array([[.7, -.2, .1], [.3, .5, -.4], [-.1, .8, .2], [.4, -.3, .9], [-.6, .1, .5], [.2, .6, -.7]])


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def one_head(x, wq, wk, wv):
    weights = softmax((x @ wq) @ (x @ wk).T / np.sqrt(wq.shape[1]))
    return weights @ (x @ wv), weights


def many_heads(x, wq, wk, wv, wo, heads):
    found = [one_head(x, *ws) for ws in zip(*(np.split(w, heads, axis=1) for w in (wq, wk, wv)))]
    return np.concatenate([out for out, _ in found], axis=1) @ wo, np.stack([weights for _, weights in found])


class Projections(unittest.TestCase):
    def test_the_example(self):
        output = multi_head_attention(X, Wq, Wk, Wv, Wo, 2)
        np.testing.assert_allclose(output, [[0.7602, 0.8963, -0.2431], [0.5479, 0.4433, 0.2226]], atol=5e-5)
        np.testing.assert_allclose(output, many_heads(X, Wq, Wk, Wv, Wo, 2)[0], atol=1e-14)
        one, weights = self_attention(X, Wq[:, :3], Wk[:, :3], Wv[:, :3])
        for found, wanted in zip((one, weights), one_head(X, Wq[:, :3], Wk[:, :3], Wv[:, :3])):
            np.testing.assert_allclose(found, wanted, atol=1e-14)

    def test_both_types_and_weights(self):
        for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-12)):
            given = [draw(*shape, dtype=dtype) for shape in ((9, 8), (8, 12), (8, 12), (8, 20), (20, 5))]
            output, weights = multi_head_attention(*given, 4, return_weights=True)
            wanted = many_heads(*(x.astype(np.float64) for x in given), 4)
            self.assertEqual((output.dtype, weights.dtype), (dtype, dtype))
            np.testing.assert_allclose(output, wanted[0], atol=10 * tolerance)
            np.testing.assert_allclose(weights, wanted[1], atol=tolerance)
            self.assertEqual(multi_head_attention(*given, 4).tobytes(), output.tobytes())
            for threads in (1, 2):
                self.assertEqual(multi_head_attention(*given, 4, threads=threads).tobytes(), output.tobytes())
            joined = [self_attention(given[0], *ws)[0] for ws in zip(*(np.split(w, 4, axis=1) for w in given[1:4]))]
            np.testing.assert_allclose(np.concatenate(joined, axis=1) @ given[4], output, atol=10 * tolerance)

    def test_rows_and_integers_are_float64(self):
        wanted = multi_head_attention(X.astype(np.float64), Wq, Wk, Wv, Wo, 2)
        for x in (X, X.tolist(), tuple(X.tolist()), X.astype(np.int8), X.astype(np.uint16), X.astype(bool)):
            found = multi_head_attention(x, Wq.tolist(), Wk, Wv, Wo, 2)
            self.assertEqual(found.dtype, np.float64)
            self.assertEqual(found.tobytes(), wanted.tobytes())
        self.assertEqual(self_attention(X.tolist(), Wq.tolist(), Wk.tolist(), Wv.tolist())[0].dtype, np.float64)

    def test_a_mix_of_types_is_float64(self):
        wanted = multi_head_attention(X.astype(np.float64), Wq.astype(np.float32).astype(np.float64), Wk, Wv, Wo, 2)
        found = multi_head_attention(X.astype(np.float32), Wq.astype(np.float32), Wk, Wv, Wo, 2)
        self.assertEqual(found.tobytes(), wanted.tobytes())

    def test_what_is_refused(self):
        x = X.astype(np.float64)
        for error, sentence, call in (
                (TypeError, "Wq has elements of float16", lambda: multi_head_attention(x, Wq.astype(np.float16), Wk, Wv, Wo, 2)),
                (TypeError, "X has elements of complex128", lambda: multi_head_attention(X * 1j, Wq, Wk, Wv, Wo, 2)),
                (TypeError, "Wv has type NoneType", lambda: self_attention(x, Wq, Wk, None)),
                (TypeError, "X has type int", lambda: self_attention(1, Wq, Wk, Wv)),
                (TypeError, "num_heads has type float", lambda: multi_head_attention(x, Wq, Wk, Wv, Wo, 2.0)),
                (ValueError, "X has rows of different lengths", lambda: self_attention([[1, 2], [3]], Wq, Wk, Wv)),
                (ValueError, "X has rank 1", lambda: self_attention([1, 2], Wq, Wk, Wv)),
                (ValueError, "num_heads", lambda: multi_head_attention(x, Wq, Wk, Wv, Wo, 4)),
                (ValueError, "num_heads", lambda: multi_head_attention(x, Wq, Wk, Wv, Wo, -1, return_weights=True)),
                (ValueError, "Wq", lambda: multi_head_attention(x, Wq[:2], Wk, Wv, Wo, 2)),
                (ValueError, "out", lambda: multi_head_attention(x, Wq, Wk, Wv, Wo, 2, out=np.zeros((2, 4)))),
                (TypeError, "out", lambda: multi_head_attention(x, Wq, Wk, Wv, Wo, 2, out=np.zeros((2, 3), np.float32)))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                call()
            self.assertIn(sentence, str(caught.exception))
            self.assertRegex(str(caught.exception), "^(self|multi_head)_attention: ")

    def test_out(self):
        x, out = X.astype(np.float64), np.zeros((2, 3))
        self.assertIs(multi_head_attention(x, Wq, Wk, Wv, Wo, 2, out=out), out)
        self.assertEqual(out.tobytes(), multi_head_attention(x, Wq, Wk, Wv, Wo, 2).tobytes())
        found, weights = multi_head_attention(x, Wq, Wk, Wv, Wo, 2, out=out, return_weights=True)
        self.assertIs(found, out)
        self.assertEqual(weights.shape, (2, 2, 2))


if __name__ == "__main__":
    unittest.main()

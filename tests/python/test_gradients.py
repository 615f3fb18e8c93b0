# SPDX-License-Identifier: Apache-2.0
"""attention_backward() of Python: against differences of the forward pass, in every type and layout, and its errors."""

import unittest

import ml_dtypes
import numpy as np
import reference
from reference import draw
from test_attention import BATCH, HEADS, OPTIONS, Q_LEN, VALUE_DIM, inputs

from multihead import AttentionGradients, RelativeBias, attention, attention_backward

FIELDS = AttentionGradients._fields
TOLERANCE = {np.float32: 1e-5, np.float16: 1e-2, ml_dtypes.bfloat16: 1e-1}


def there(options):
    """The gradients that options have."""
    return [name for name in FIELDS if name in ("q", "k", "v", "scale") or options.get(name) is not None]


def call(dtype, options):
    """Inputs in a type, what the forward pass gives, and gradients from above."""
    q, k, v = inputs(dtype)
    out, lse = attention(q, k, v, return_lse=True, **options)
    return (draw(BATCH, HEADS, Q_LEN, VALUE_DIM, dtype=dtype, seed=4), q, k, v, out, lse), \
        draw(BATCH, HEADS, Q_LEN, dtype=lse.dtype, seed=5)


class Gradients(unittest.TestCase):
    def loss(self, d_out, d_lse, values, options):
        q, k, v = (values.pop(name) for name in ("q", "k", "v"))
        if "relative_bias" in values and isinstance(options["relative_bias"], RelativeBias):
            values["relative_bias"] = options["relative_bias"]._replace(table=values["relative_bias"])
        out, lse, _ = reference.attention(q, k, v, **{**options, **values})
        seen = np.isfinite(lse)
        return float((out * d_out).sum() + (lse[seen] * d_lse[seen]).sum())

    def test_every_option_against_differences(self):
        """Along a random direction in everything that a call reads: its derivative is the gradients times the direction."""
        step = 1e-6
        for name, options in OPTIONS.items():
            with self.subTest(options=name):
                arguments, d_lse = call(np.float64, options)
                want = there(options)
                found = attention_backward(*arguments, d_lse=d_lse, want=want, **options)
                d_out, q, k, v, _, _ = arguments
                values = {"q": q, "k": k, "v": v, "scale": options.get("scale", q.shape[3] ** -0.5)}
                for field in want[3:]:
                    given = options.get(field, values.get(field))
                    values[field] = np.asarray(given.table if isinstance(given, RelativeBias) else given, np.float64)
                way = {field: draw(*np.shape(values[field]), dtype=np.float64, seed=9) for field in want}
                losses = [self.loss(d_out, d_lse, {field: values[field] + side * step * way[field] for field in want}, options)
                          for side in (1, -1)]
                slope = sum(float((np.asarray(getattr(found, field)) * way[field]).sum()) for field in want)
                self.assertAlmostEqual(slope, (losses[0] - losses[1]) / (2 * step), delta=1e-6 * (1 + abs(slope)))
                for field in FIELDS:
                    got = getattr(found, field)
                    self.assertEqual(got is None, field not in want)
                    if got is not None:
                        self.assertEqual(np.shape(got), np.shape(values[field]), field)

    def test_every_type_is_near_float64(self):
        for name, options in OPTIONS.items():
            for dtype, tolerance in TOLERANCE.items():
                with self.subTest(options=name, dtype=np.dtype(dtype).name):
                    arguments, d_lse = call(dtype, options)
                    want = there(options)
                    found = attention_backward(*arguments, d_lse=d_lse, want=want, **options)
                    wide = [np.asarray(x).astype(np.float64) for x in arguments]
                    wide[4], wide[5] = attention(*wide[1:4], return_lse=True, **options)
                    truth = attention_backward(*wide, d_lse=d_lse.astype(np.float64), want=want, **options)
                    for field in want:
                        got, wanted = (np.asarray(getattr(x, field), np.float64) for x in (found, truth))
                        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * (1 + abs(wanted).max()), err_msg=field)
                    for field, like in (("q", 1), ("k", 2), ("v", 3)):
                        self.assertEqual(getattr(found, field).dtype, arguments[like].dtype)
                    if "bias" in want:
                        self.assertEqual(found.bias.dtype, np.float32)
                    self.assertIs(type(found.scale), float)

    def test_layouts_rank_and_threads_give_the_same_bits(self):
        for name, options in OPTIONS.items():
            with self.subTest(options=name):
                arguments, _ = call(np.float32, options)
                found = attention_backward(*arguments, **options)
                turned = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in arguments[:5]]
                other = attention_backward(*turned, arguments[5], layout="bshd", threads=3, **options)
                for field in ("q", "k", "v"):
                    self.assertEqual(getattr(other, field).swapaxes(1, 2).tobytes(), getattr(found, field).tobytes(), field)
        arguments, d_lse = call(np.float32, {})
        found = attention_backward(*arguments, d_lse=d_lse)
        one = attention_backward(*(x[0] for x in arguments), d_lse=d_lse[0])
        for field in ("q", "k", "v"):
            self.assertEqual(getattr(one, field).tobytes(), getattr(found, field)[0].tobytes(), field)

    def test_what_is_not_wanted_is_none(self):
        arguments, _ = call(np.float32, {})
        everything = attention_backward(*arguments)
        only = attention_backward(*arguments, want=["k"])
        self.assertEqual(only.k.tobytes(), everything.k.tobytes())
        self.assertEqual([name for name in FIELDS if getattr(only, name) is not None], ["k"])
        self.assertEqual(attention_backward(*arguments, want=()), AttentionGradients())

    def test_errors(self):
        arguments, _ = call(np.float32, {})
        for error, sentence, keywords in (
                (TypeError, "want has type str; a tuple of names is wanted", {"want": "q"}),
                (ValueError, "want has 'keys'", {"want": ("q", "keys")}),
                (ValueError, 'want has "bias", and bias is not given; they come together', {"want": ("bias",)}),
                (ValueError, "dropout_seed is missing; with dropout a seed is wanted", {"dropout": 0.1}),
                (TypeError, "unexpected keyword argument 'dropout_p'", {"dropout_p": 0.1}),
                (ValueError, "d_lse has rank 4; it must be 3", {"d_lse": arguments[0]})):
            with self.subTest(sentence=sentence), self.assertRaises(error) as raised:
                attention_backward(*arguments, **keywords)
            self.assertIn(sentence, str(raised.exception))


class Dropout(unittest.TestCase):
    def test_seeds_and_streams(self):
        q, k, v = inputs(np.float32)
        drop = {"dropout": 0.5, "dropout_seed": 1}
        first = attention(q, k, v, **drop)
        self.assertEqual(attention(q, k, v, **drop).tobytes(), first.tobytes())
        for other in ({"dropout_seed": 2}, {"dropout_stream": 1}, {"dropout": 0.0}):
            self.assertNotEqual(attention(q, k, v, **{**drop, **other}).tobytes(), first.tobytes())
        self.assertEqual(attention(q, k, v, dropout=0.0).tobytes(), attention(q, k, v, dropout_seed=4).tobytes())

    def test_errors(self):
        q, k, v = inputs(np.float32)
        seed = {"dropout_seed": 1}
        for error, sentence, keywords in (
                (ValueError, "dropout_seed is missing", {"dropout": 0.5}),
                (ValueError, "the dropout probability is 1.0", {"dropout": 1, **seed}),
                (TypeError, "dropout has type str; a number is wanted", {"dropout": "0.5", **seed}),
                (TypeError, "dropout_seed has type float; an integer is wanted", {"dropout_seed": 0.5}),
                (TypeError, "dropout_seed has type bool; an integer is wanted", {"dropout_seed": True}),
                (ValueError, "64 bits without a sign do not hold", {"dropout_seed": -1}),
                (ValueError, "64 bits without a sign do not hold", {"dropout_seed": 2 ** 64}),
                (ValueError, "dropout_stream is 4294967296; 0 to 4294967295 are wanted", {"dropout_stream": 2 ** 32})):
            with self.subTest(sentence=sentence), self.assertRaises(error) as raised:
                attention(q, k, v, **keywords)
            self.assertIn(sentence, str(raised.exception))


if __name__ == "__main__":
    unittest.main()

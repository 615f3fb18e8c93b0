# SPDX-License-Identifier: Apache-2.0
"""multihead.torch.MultiheadAttention against torch.nn.MultiheadAttention in float64, over a grid of every argument."""

import copy
import io
import itertools
import math
import pickle
import random
import unittest
import warnings

import torch

import multihead
import multihead.torch as ours

# As a part of the largest output: bfloat16 and float16 also round projections, as PyTorch's do.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
WIDTH, HEADS, BATCH = 12, 3, 2
CONSTRUCTOR = {"bias": (True, False), "add_bias_kv": (False, True), "add_zero_attn": (False, True),
               "widths": ((WIDTH, WIDTH), (5, 7), (WIDTH, 7)), "batch_first": (False, True)}
CALL = {"attn_mask": ("none", "bool", "bool heads", "float", "float heads", "-inf", "causal"),
        "padding": ("none", "bool", "float"), "weights": ("none", "mean", "heads"),
        "inputs": ("self", "key is value", "cross", "unbatched self", "unbatched cross")}


def combinations(options):
    return [dict(zip(options, values)) for values in itertools.product(*options.values())]


def pair(dtype, seed, bias=True, add_bias_kv=False, add_zero_attn=False, widths=(WIDTH, WIDTH), batch_first=False):
    """(PyTorch's module in float64, ours in dtype) with the same parameters."""
    arguments = {"bias": bias, "add_bias_kv": add_bias_kv, "add_zero_attn": add_zero_attn, "kdim": widths[0],
                 "vdim": widths[1], "batch_first": batch_first}
    torch.manual_seed(seed)
    theirs = torch.nn.MultiheadAttention(WIDTH, HEADS, **arguments, dtype=dtype)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module = ours.MultiheadAttention(WIDTH, HEADS, **arguments, dtype=dtype)
    module.load_state_dict(theirs.state_dict())
    return theirs.double(), module


def inputs(kind, widths, batch_first, dtype, generator):
    """query, key, value, or None where the widths do not allow it."""
    def draw(length, width):
        shape = (length, width) if kind.startswith("unbatched") else (
            (BATCH, length, width) if batch_first else (length, BATCH, width))
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)

    if kind.endswith("self"):
        x = draw(5, WIDTH)
        return (x, x, x) if widths == (WIDTH, WIDTH) else None
    if kind == "key is value":
        memory = draw(7, widths[0])
        return (draw(5, WIDTH), memory, memory) if widths[0] == widths[1] else None
    return draw(5, WIDTH), draw(7, widths[0]), draw(7, widths[1])


def masks(attn_mask, padding, q_len, kv_len, unbatched, dtype, generator):
    """The arguments of forward for the two masks, and is_causal."""
    heads = (HEADS if unbatched else BATCH * HEADS, q_len, kv_len)
    drawn = torch.rand(heads, generator=generator) < 0.4
    drawn[..., 0] = False  # no row is empty
    added = torch.randn(heads, dtype=torch.float64, generator=generator).to(dtype)
    causal = torch.ones(q_len, kv_len).triu(1).bool()
    mask = {"none": None, "bool": drawn[0], "bool heads": drawn, "float": added[0], "float heads": added,
            "-inf": torch.zeros(q_len, kv_len, dtype=dtype).masked_fill(drawn[0], -math.inf), "causal": causal}[attn_mask]
    ends = torch.arange(kv_len)[None] >= torch.tensor([kv_len - 2, 1])[:, None]
    pad = {"none": None, "bool": ends, "float": added[0, :BATCH]}[padding]
    return {"attn_mask": mask, "is_causal": attn_mask == "causal",
            "key_padding_mask": pad[0] if unbatched and pad is not None else pad}


def doubled(value):
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it


class Module(unittest.TestCase):
    def setUp(self):
        warnings.filterwarnings("ignore", message="Support for mismatched", category=UserWarning)

    def compare(self, theirs, module, tensors, **arguments):
        kept = {id(tensor): tensor.double() for tensor in tensors}  # what is one tensor stays one
        want = theirs(*[kept[id(tensor)] for tensor in tensors],
                      **{name: doubled(value) for name, value in arguments.items()})
        before = multihead.tasks_run()
        got = module(*tensors, **arguments)
        self.assertGreater(multihead.tasks_run(), before)
        dtype = tensors[0].dtype
        for right, result in zip(want, got):
            self.assertEqual(right is None, result is None)
            if result is not None:
                self.assertEqual((result.shape, result.dtype), (right.shape, dtype))
                bound = TOLERANCE[dtype] * max(1.0, float(right.abs().max()))
                self.assertLessEqual(float((result.double() - right).abs().max()), bound)

    def compare_case(self, dtype, constructor, call, seed):
        tensors = inputs(call["inputs"], constructor["widths"], constructor["batch_first"], dtype,
                         torch.Generator().manual_seed(seed))
        if tensors is None:
            return 0
        q_len, kv_len = (tensor.shape[1 if constructor["batch_first"] and tensor.dim() == 3 else 0]
                         for tensor in tensors[:2])
        given = masks(call["attn_mask"], call["padding"], q_len, kv_len, call["inputs"].startswith("unbatched"), dtype,
                      torch.Generator().manual_seed(seed + 1))
        theirs, module = self.pairs[dtype, tuple(constructor.values())]
        module.train(seed % 2 == 0)
        with self.subTest(dtype=dtype, **constructor, **call):
            self.compare(theirs, module, tensors, **given, need_weights=call["weights"] != "none",
                         average_attn_weights=call["weights"] == "mean")
        return 1

    def test_the_grid(self):
        """Every constructor, each with calls that are drawn from all; fewer where types only differ."""
        self.pairs = {(dtype, tuple(constructor.values())): pair(dtype, seed, **constructor) for dtype in TOLERANCE
                      for seed, constructor in enumerate(combinations(CONSTRUCTOR))}
        drawn, calls, count = random.Random(7), combinations(CALL), 0
        with torch.no_grad():
            for dtype, constructor in itertools.product(TOLERANCE, combinations(CONSTRUCTOR)):
                for call in drawn.sample(calls, 80 if dtype == torch.float64 else 12):
                    count += self.compare_case(dtype, constructor, call, count)
        self.assertGreater(count, 3000)

    def test_with_gradients_on(self):
        for constructor in combinations(CONSTRUCTOR)[::5]:
            theirs, module = pair(torch.float32, 3, **constructor)
            tensors = inputs("cross", constructor["widths"], constructor["batch_first"], torch.float32,
                             torch.Generator().manual_seed(3))
            self.compare(theirs, module, tensors)
            for result in module(*tensors):
                self.assertIsNotNone(result.grad_fn)

    def test_empty_rows_are_zero(self):
        """Where PyTorch gives zeros without weights and NaN with them."""
        theirs, module = pair(torch.float64, 4, batch_first=True)
        x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
        padding = torch.zeros(2, 5, dtype=torch.bool)
        padding[1] = True
        want, _ = theirs(x, x, x, key_padding_mask=padding, need_weights=False)
        self.assertTrue(theirs(x, x, x, key_padding_mask=padding)[0][1].isnan().all())
        for need_weights in (False, True):
            got, weights = module(x, x, x, key_padding_mask=padding, need_weights=need_weights)
            self.assertTrue(torch.allclose(got, want, atol=1e-12))
            self.assertTrue(torch.equal(got[1], module.out_proj.bias.expand(5, WIDTH)))
            if need_weights:
                self.assertFalse(weights[1].any())

    def test_weights_change_no_bit(self):
        _, module = pair(torch.float32, 5)
        x = torch.randn(40, 2, WIDTH)
        self.assertTrue(torch.equal(module(x, x, x)[0], module(x, x, x, need_weights=False)[0]))

    def test_a_changed_parameter_is_seen(self):
        theirs, module = pair(torch.float64, 6)
        x = torch.randn(5, 2, WIDTH, dtype=torch.float64)
        module(x, x, x)
        for change in (lambda p: p.data.normal_(), lambda p: p.detach().numpy().fill(0.25),
                       lambda p: setattr(p, "data", torch.randn_like(p))):
            for name, parameter in module.named_parameters():
                change(parameter)
                theirs.get_parameter(name).data.copy_(parameter.data)
                self.compare(theirs, module, (x, x, x))

    def test_functional_call(self):
        theirs, module = pair(torch.float64, 8)
        x = torch.randn(5, 2, WIDTH, dtype=torch.float64)
        other = {name: torch.randn_like(parameter) for name, parameter in module.named_parameters()}
        want = torch.func.functional_call(theirs, other, (x, x, x))
        got = torch.func.functional_call(module, other, (x, x, x))
        self.assertTrue(torch.allclose(got[0], want[0], atol=1e-12))

    def test_autocast(self):
        theirs, module = pair(torch.float32, 9, add_bias_kv=True)
        theirs, x = theirs.float(), torch.randn(5, 2, WIDTH)
        with torch.autocast("cpu"), torch.no_grad():
            want, got = theirs(x, x, x)[0], module(x, x, x)[0]
        self.assertEqual(got.dtype, want.dtype)
        self.assertTrue(torch.allclose(got, want, atol=0.1))

    def test_inference_mode(self):
        theirs, module = pair(torch.float64, 10)
        x = torch.randn(5, 2, WIDTH, dtype=torch.float64)
        with torch.inference_mode():
            self.compare(theirs, module, (x, x, x))

    def test_nested_tensors(self):
        theirs, module = pair(torch.float64, 11, batch_first=True)
        parts = [torch.randn(length, WIDTH, dtype=torch.float64) for length in (5, 2, 3)]
        nested = torch.nested.as_nested_tensor(parts)
        got, _ = module.eval()(nested, nested, nested)
        for part, result in zip(parts, got.unbind()):
            self.assertTrue(torch.allclose(result, theirs(part, part, part)[0], atol=1e-12))
        with self.assertRaisesRegex(ValueError, "query is a nested tensor"):
            module(nested, nested, nested, key_padding_mask=torch.zeros(3, 5, dtype=torch.bool))


class Parameters(unittest.TestCase):
    def test_same_start_and_names(self):
        for constructor in combinations(CONSTRUCTOR):
            constructor = dict(constructor)
            constructor["kdim"], constructor["vdim"] = constructor.pop("widths")
            modules = []
            for kind in (torch.nn.MultiheadAttention, ours.MultiheadAttention):
                torch.manual_seed(12)
                modules.append(kind(WIDTH, HEADS, **constructor, dtype=torch.float64))
                modules.append(modules[-1].state_dict())
                torch.manual_seed(13)
                modules[-2]._reset_parameters()
                modules.append(modules[-2].state_dict())
            theirs, before_theirs, after_theirs, module, before, after = modules
            self.assertEqual(list(before), list(before_theirs))
            for left, right in ((before, before_theirs), (after, after_theirs)):
                self.assertTrue(all(torch.equal(left[name], right[name]) for name in left))
            module.load_state_dict(theirs.state_dict())
            theirs.load_state_dict(module.state_dict())

    def test_copies(self):
        x = torch.randn(5, 2, WIDTH)
        module = ours.MultiheadAttention(WIDTH, HEADS)
        want = module(x, x, x)[0]
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)):
            self.assertIs(type(other), ours.MultiheadAttention)
            self.assertTrue(torch.equal(other(x, x, x)[0], want))
        double = copy.deepcopy(module).to(torch.float64)
        self.assertEqual(double(*[x.double()] * 3)[0].dtype, torch.float64)

    def test_positional_arguments(self):
        arguments = (WIDTH, HEADS, 0.0, True, True, True, 5, 7, True, "cpu", torch.float64)
        theirs, module = torch.nn.MultiheadAttention(*arguments), ours.MultiheadAttention(*arguments)
        module.load_state_dict(theirs.state_dict())
        q, k, v = (torch.randn(2, 4, width, dtype=torch.float64) for width in (WIDTH, 5, 7))
        mask = torch.zeros(4, 4).triu(1).bool()
        padding = torch.zeros(2, 4, dtype=torch.bool)
        call = (padding, True, mask, False, False)
        for want, got in zip(theirs(q, k, v, *call), module(q, k, v, *call)):
            self.assertTrue(torch.allclose(want, got, atol=1e-12))


class Refused(unittest.TestCase):
    def refuse(self, words, *arguments, error=ValueError, theirs=True, module=None, **options):
        module = module or ours.MultiheadAttention(WIDTH, HEADS)
        before = multihead.tasks_run()
        with self.assertRaises(error) as raised:
            module(*arguments, **options)
        for word in ("MultiheadAttention", *words.split()):
            self.assertIn(word, str(raised.exception))
        self.assertEqual(multihead.tasks_run(), before)
        if theirs:
            with self.assertRaises((AssertionError, RuntimeError, AttributeError)):
                torch.nn.MultiheadAttention(WIDTH, HEADS)(*arguments, **options)

    def test_inputs(self):
        x, one = torch.randn(5, 2, WIDTH), torch.randn(5, WIDTH)
        self.refuse("key 2 axes query 3", x, one, one)
        self.refuse("query 4 axes", x[None], x, x)
        self.refuse("query 11 features 12", x[..., 1:], x, x)
        self.refuse("key 11 features 12", x, x[..., 1:], x)
        self.refuse("value length", x, x, x[1:])
        self.refuse("batch", x, x[:, :1], x[:, :1])
        self.refuse("query complex64", *[x.to(torch.complex64)] * 3, error=TypeError)
        self.refuse("query float64 parameters float32", *[x.double()] * 3, error=TypeError)
        self.refuse("query sparse", x.to_sparse(), x, x)

    def test_masks(self):
        x, one = torch.randn(5, 2, WIDTH), torch.randn(5, WIDTH)
        for shape in ((5,), (5, 4), (4, 5), (2, 5, 5), (3, 5, 5), (1, 5, 5), (2, 3, 5, 5)):
            self.refuse(f"attn_mask {shape}", x, x, x, attn_mask=torch.zeros(shape))
        for shape in ((5,), (2, 4), (1, 5), (5, 2)):
            self.refuse(f"key_padding_mask {shape}", x, x, x, key_padding_mask=torch.zeros(shape))
        self.refuse("attn_mask (6, 5, 5)", one, one, one, attn_mask=torch.zeros(6, 5, 5))
        for dtype in (torch.int64, torch.uint8, torch.float64):
            self.refuse(f"attn_mask {dtype}", x, x, x, attn_mask=torch.zeros(5, 5, dtype=dtype), error=TypeError)
        self.refuse("is_causal attn_mask", x, x, x, is_causal=True)

    def test_no_tensors(self):
        x = torch.randn(5, 2, WIDTH)
        for query, name in ((None, "NoneType"), ([1.0], "list")):
            self.refuse(f"query {name} torch.Tensor", query, x, x, error=TypeError, theirs=False)

    def test_devices(self):
        x = torch.randn(5, 2, WIDTH)
        meta = x.to("meta")
        for name, arguments in (("query", (meta, x, x)), ("key", (x, meta, x)), ("value", (x, x, meta))):
            self.refuse(f"{name} device meta cpu", *arguments, theirs=False)
        for name, shape in (("attn_mask", (5, 5)), ("key_padding_mask", (2, 5))):
            for dtype in (torch.bool, torch.float32):
                self.refuse(f"{name} device meta cpu", x, x, x, theirs=False,
                            **{name: torch.zeros(shape, dtype=dtype, device="meta")})
        module = ours.MultiheadAttention(WIDTH, HEADS, device="meta")
        self.refuse("query device cpu meta", x, x, x, module=module, theirs=False)
        self.assertEqual(module(meta, meta, meta)[0].device.type, "meta")

    def test_shapes_of_masks_are_the_callers(self):
        one = torch.randn(5, WIDTH)
        for added, module in ((0, None), (1, ours.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True))):
            for shape in ((1, 5), (4,), (5 + added, 1)):
                self.refuse(f"key_padding_mask {shape}; (5,)", one, one, one, module=module,
                            key_padding_mask=torch.zeros(shape), theirs=False)

    def test_dropout(self):
        x = torch.randn(5, 2, WIDTH)
        module = ours.MultiheadAttention(WIDTH, HEADS)
        for dropout in (-0.1, 1.0, float("nan")):
            module.train().dropout = dropout
            self.refuse(f"dropout {dropout} below", x, x, x, module=module, theirs=False)
            module.eval()(x, x, x)  # there it is not read

    def test_constructor(self):
        for arguments in ((12, 5), (0, 1), (12, 0)):
            with self.assertRaises((ValueError, AssertionError)):
                ours.MultiheadAttention(*arguments)


if __name__ == "__main__":
    unittest.main()

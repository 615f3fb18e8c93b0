# SPDX-License-Identifier: Apache-2.0
"""multihead.torch in PyTorch's transformers: the same results in training and evaluation, and only our kernels attend."""

import copy
import unittest
import warnings

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import multihead
import multihead.torch as ours

WIDTH, HEADS, BATCH, LENGTH, MEMORY = 16, 4, 3, 6, 8
PADDING = torch.arange(LENGTH)[None] >= torch.tensor([LENGTH, 4, 2])[:, None]


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it
    warnings.filterwarnings("ignore", message=".*nested tensor", category=UserWarning)
    warnings.filterwarnings("ignore", message="enable_nested_tensor is True", category=UserWarning)


class Operators(TorchDispatchMode):
    """Records the names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def tasks(q_len, kv_len, causal=False):
    options = {"causal": "top_left"} if causal else {}
    return multihead.explain(q_len=q_len, kv_len=kv_len, head_dim=WIDTH // HEADS, heads=HEADS, batch=BATCH,
                             dtype="float64", **options).tasks


class Models(unittest.TestCase):
    def compare(self, theirs, arguments, options, expected_tasks, seen=None):
        """Both models in training and evaluation, with gradients and without: results, and what computed them.

        seen: which outputs are compared, where PyTorch's fast path leaves padding as it likes."""
        model = ours.replace(copy.deepcopy(theirs))
        for training, gradients in ((True, True), (True, False), (False, True), (False, False)):
            theirs.train(training)
            model.train(training)
            with self.subTest(training=training, gradients=gradients), torch.set_grad_enabled(gradients):
                before = multihead.tasks_run()
                want = theirs(*arguments, **options)
                self.assertEqual(multihead.tasks_run(), before)
                got = model(*arguments, **options)
                self.assertEqual(multihead.tasks_run() - before, expected_tasks)
                self.assertEqual(got.shape, want.shape)
                difference = (got - want).abs()
                difference = difference if seen is None else difference[seen]
                self.assertLessEqual(float(difference.max()), 1e-12)
                with Operators() as operators:
                    model(*arguments, **options)
                self.only_ours_attends(operators.names)
        return model

    def only_ours_attends(self, names):
        self.assertTrue(any(name.startswith("multihead::attention") for name in names))
        for name in names:
            for word in ("softmax", "bmm", "scaled_dot", "multi_head", "transformer_encoder", "flash"):
                self.assertNotIn(word, name.replace("multihead::", ""))

    def test_encoder_layer(self):
        x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64)
        causal = torch.nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64)
        for norm_first in (False, True):
            layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=True, norm_first=norm_first,
                                                     dtype=torch.float64)
            one = tasks(LENGTH, LENGTH)
            self.compare(layer, (x,), {}, one)
            self.compare(layer, (x,), {"src_key_padding_mask": PADDING}, one, ~PADDING)
            self.compare(layer, (x,), {"src_mask": causal, "is_causal": True}, tasks(LENGTH, LENGTH, causal=True))
            self.compare(layer, (x,), {"src_mask": torch.ones(LENGTH, LENGTH).triu(1).bool()}, one)

    def test_encoder(self):
        x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64)
        for nested in (True, False):
            encoder = torch.nn.TransformerEncoder(
                torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=True, dtype=torch.float64), 3,
                norm=torch.nn.LayerNorm(WIDTH, dtype=torch.float64), enable_nested_tensor=nested)
            self.assertEqual(encoder.use_nested_tensor, nested)
            model = self.compare(encoder, (x,), {}, 3 * tasks(LENGTH, LENGTH))
            self.assertFalse(model.use_nested_tensor)
            self.compare(encoder, (x,), {"src_key_padding_mask": PADDING}, 3 * tasks(LENGTH, LENGTH), ~PADDING)
            self.assertEqual(encoder.use_nested_tensor, nested)

    def test_sequence_first(self):
        encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, dtype=torch.float64),
                                              2)
        x = torch.randn(LENGTH, BATCH, WIDTH, dtype=torch.float64)
        self.compare(encoder, (x,), {"src_key_padding_mask": PADDING}, 2 * tasks(LENGTH, LENGTH))

    def test_decoder(self):
        x, memory = (torch.randn(BATCH, length, WIDTH, dtype=torch.float64) for length in (LENGTH, MEMORY))
        causal = torch.nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64)
        for norm_first in (False, True):
            decoder = torch.nn.TransformerDecoder(
                torch.nn.TransformerDecoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=True, norm_first=norm_first,
                                                 dtype=torch.float64), 2)
            self.compare(decoder, (x, memory), {}, 2 * (tasks(LENGTH, LENGTH) + tasks(LENGTH, MEMORY)))
            self.compare(decoder, (x, memory), {"tgt_mask": causal, "tgt_key_padding_mask": PADDING},
                         2 * (tasks(LENGTH, LENGTH) + tasks(LENGTH, MEMORY)))
            self.compare(decoder, (x, memory), {"tgt_mask": causal, "tgt_is_causal": True},
                         2 * (tasks(LENGTH, LENGTH, causal=True) + tasks(LENGTH, MEMORY)))

    def test_transformer(self):
        model = torch.nn.Transformer(WIDTH, HEADS, 2, 2, 32, 0.0, batch_first=True, dtype=torch.float64)
        source, target = (torch.randn(BATCH, length, WIDTH, dtype=torch.float64) for length in (MEMORY, LENGTH))
        expected = 2 * (tasks(MEMORY, MEMORY) + tasks(LENGTH, LENGTH) + tasks(LENGTH, MEMORY))
        self.compare(model, (source, target), {}, expected)
        padding = torch.arange(MEMORY)[None] >= torch.tensor([MEMORY, 3, 5])[:, None]
        self.compare(model, (source, target), {"src_key_padding_mask": padding, "memory_key_padding_mask": padding},
                     expected)

    def test_modules_made_by_hand(self):
        """Ours put into a layer, and the layer into an encoder, without replace()."""
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=True, dtype=torch.float64)
        theirs = torch.nn.TransformerEncoder(layer, 2).eval()
        mine = copy.deepcopy(layer)
        mine.self_attn = ours.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
        encoder = torch.nn.TransformerEncoder(mine, 2).eval()
        self.assertFalse(encoder.use_nested_tensor)
        encoder.load_state_dict(theirs.state_dict())
        late = copy.deepcopy(theirs)  # an encoder that has already decided to make nested tensors
        for one in late.layers:
            attention = ours.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
            attention.load_state_dict(one.self_attn.state_dict())
            one.self_attn = attention.eval()
        self.assertTrue(late.use_nested_tensor)
        x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64)
        with torch.no_grad():
            want = theirs(x, src_key_padding_mask=PADDING)
            for model in (encoder, late):
                before = multihead.tasks_run()
                got = model(x, src_key_padding_mask=PADDING)
                self.assertEqual(multihead.tasks_run() - before, 2 * tasks(LENGTH, LENGTH))
                self.assertLessEqual(float((got - want)[~PADDING].abs().max()), 1e-12)

    def test_dropout(self):
        layer = ours.replace(torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.1, batch_first=True))
        x = torch.randn(BATCH, LENGTH, WIDTH)
        for part in (layer.dropout, layer.dropout1, layer.dropout2):
            part.p = 0.0  # what is left is that of attention
        self.assertFalse(torch.equal(layer(x), layer(x)))
        layer.eval()
        self.assertTrue(torch.equal(layer(x), layer(x)))


class Replace(unittest.TestCase):
    def test_in_place(self):
        model = torch.nn.Transformer(WIDTH, HEADS, 1, 1, 32, 0.0, batch_first=True)
        parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
        calls = []
        model.encoder.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
        attention = model.encoder.layers[0].self_attn
        self.assertEqual(ours.replaced(model), [])
        self.assertIs(ours.replace(model), model)
        self.assertIs(model.encoder.layers[0].self_attn, attention)
        self.assertEqual(ours.replaced(model), ["encoder.layers.0.self_attn", "decoder.layers.0.self_attn",
                                                "decoder.layers.0.multihead_attn"])
        self.assertEqual({name: id(parameter) for name, parameter in model.named_parameters()}, parameters)
        ours.replace(model)
        self.assertEqual(len(ours.replaced(model)), 3)
        model(torch.randn(2, 3, WIDTH), torch.randn(2, 3, WIDTH))
        self.assertEqual(calls, [1])

    def test_the_model_itself(self):
        module = torch.nn.MultiheadAttention(WIDTH, HEADS, kdim=5)
        self.assertIs(ours.replace(module), module)
        self.assertIs(type(module), ours.MultiheadAttention)
        self.assertEqual(ours.replaced(module), [""])

    def refuse(self, model, *words):
        types = [type(module) for module in model.modules()]
        with self.assertRaises(ValueError) as raised:
            ours.replace(model)
        for word in ("replace: ", *words):
            self.assertIn(word, str(raised.exception))
        self.assertEqual([type(module) for module in model.modules()], types)

    def test_refused(self):
        class Own(torch.nn.MultiheadAttention):
            pass

        good = torch.nn.MultiheadAttention(WIDTH, HEADS)
        self.refuse(torch.nn.Linear(3, 3), "no torch.nn.MultiheadAttention")
        self.refuse(torch.nn.Sequential(good, Own(WIDTH, HEADS)), "1 cannot", "Own")
        self.refuse(torch.nn.Sequential(good, torch.nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.complex64)),
                    "1 cannot", "in_proj_weight is torch.complex64")
        self.refuse(torch.nn.ModuleDict({"wide": torch.nn.MultiheadAttention(1025, 1)}), "wide cannot", "1025 features")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.refuse(torch.nn.Sequential(torch.jit.script(good)), "0 cannot", "scripted")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""attn_implementation="multihead" runs or says why not: what is refused, and with which sentence."""

import unittest

import torch
from torch.autograd import forward_ad
import transformers_models as models
from transformers_models import TOLERANCE, inputs_of, pair

import multihead
import multihead.transformers
from multihead.transformers import attention_forward


def operands(q_len=3, kv_len=3, heads=2, dtype=torch.float32):
    return [torch.ones(1, heads, length, 4, dtype=dtype) for length in (q_len, kv_len, kv_len)]


class Refusals(unittest.TestCase):
    def refused(self, error, sentence, *arguments, **named):
        before = multihead.tasks_run()
        with self.assertRaisesRegex(error, sentence):
            attention_forward(*arguments, **named)
        self.assertEqual(multihead.tasks_run(), before)

    def test_dropout(self):
        for dropout in (-0.25, 1.0):
            self.refused(ValueError, f"Identity: dropout is {dropout}; it must be 0 or more and below 1", torch.nn.Identity(),
                         *operands(), None, is_causal=True, dropout=dropout)

    def test_a_second_derivative(self):
        q = torch.randn(1, 2, 3, 4, requires_grad=True)
        out, weights = attention_forward(torch.nn.Identity(), q, q, q, None, is_causal=True, output_attentions=True)
        for result in (out, weights):
            gradient, = torch.autograd.grad(result.square().sum(), q, create_graph=True)
            with self.assertRaisesRegex(NotImplementedError, "no second derivative of attention"):
                gradient.sum().backward()

    def test_what_needs_no_gradient(self):
        for tensor in attention_forward(torch.nn.Identity(), *operands(), None, is_causal=True, output_attentions=True):
            self.assertFalse(tensor.requires_grad)

    def test_unknown_arguments(self):
        named = {"is_causal": False}
        for name, value in (("indices", torch.zeros(1)), ("sinks", torch.zeros(1)), ("gate", 0)):
            self.refused(ValueError, f"Identity passes {name}, which is not known", torch.nn.Identity(), *operands(), None,
                         **named, **{name: value})
        self.refused(ValueError, "passes cu_seq_lens_q without a mask", torch.nn.Identity(), *operands(), None, **named,
                     cu_seq_lens_q=torch.tensor([0, 3]))
        attention_forward(torch.nn.Identity(), *operands(), torch.ones(1, 1, 3, 3, dtype=torch.bool),
                          cu_seq_lens_q=torch.tensor([0, 3]), position_ids=torch.arange(3), indices=None)

    def test_unknown_argument_of_a_model(self):
        _, ours = pair("llama")
        with self.assertRaisesRegex(ValueError, "LlamaAttention passes block_table"):
            ours(**inputs_of("llama"), block_table=[0])

    def test_sinks_that_are_not_passed(self):
        module = torch.nn.Identity()
        module.sinks = torch.zeros(2)
        self.refused(ValueError, "Identity has sinks and passes no s_aux", module, *operands(), None, is_causal=True)

    def test_masks(self):
        module = torch.nn.Identity()
        self.refused(ValueError, r"attention_mask has shape \(1, 3\); .*= \(1, 2, 3, 3\)", module, *operands(),
                     torch.ones(1, 3))
        self.refused(ValueError, r"attention_mask has shape \(1, 1, 3, 4\)", module, *operands(), torch.ones(1, 1, 3, 4))
        self.refused(TypeError, "attention_mask has dtype torch.int64", module, *operands(),
                     torch.ones(1, 1, 3, 3, dtype=torch.long))
        self.refused(TypeError, "attention_mask is a list", module, *operands(), [True])
        self.refused(ValueError, "passes neither attention_mask nor is_causal", module, *operands(), None)
        self.refused(ValueError, "is causal and passes no attention_mask, q_len is 2, kv_len 3", module, *operands(2), None,
                     is_causal=True)

    def test_tensors(self):
        q, k, v = operands()
        module = torch.nn.Identity()
        self.refused((TypeError, ValueError), "float64", module, q.double(), k, v, None, is_causal=True)
        self.refused(ValueError, "heads", module, torch.ones(1, 3, 3, 4), k, v, None, is_causal=True)

    def test_tangents(self):
        _, ours = pair("llama")
        embeddings = torch.randn(1, 3, 64)
        q, k, v = operands()
        bias = torch.zeros(1, 2, 3, 3)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(embeddings, embeddings)
            with self.assertRaisesRegex(NotImplementedError, "no forward-mode gradient"):
                ours(inputs_embeds=dual)
            added = forward_ad.make_dual(bias, bias)
            for mask, named in ((added, {}), (bias, {"position_bias": added}),
                                (bias, {"s_aux": forward_ad.make_dual(*[torch.ones(2)] * 2)})):
                self.refused(NotImplementedError, "no forward-mode gradient", torch.nn.Identity(), q, k, v, mask, **named)

    def test_a_window_without_a_mask(self):
        self.refused(ValueError, "Identity passes sliding_window 2 without attention_mask and is not causal, kv_len is 3",
                     torch.nn.Identity(), *operands(), None, is_causal=False, sliding_window=2)
        attention_forward(torch.nn.Identity(), *operands(), None, is_causal=False, sliding_window=3)  # hides nothing

    def test_devices(self):
        q, k, v = operands()
        meta = q.to("meta")
        named = {"s_aux": torch.ones(2, device="meta"), "position_bias": torch.zeros(1, 2, 3, 3, device="meta")}
        for name, tensors, mask, more in (
                ("query", (meta, meta, meta), None, {}), ("value", (q, k, meta), None, {}),
                ("attention_mask", (q, k, v), torch.zeros(1, 1, 3, 3, device="meta"), {}),
                *((name, (q, k, v), None, {name: tensor}) for name, tensor in named.items())):
            self.refused(ValueError, f"{name} is on device meta; .* the CPU", torch.nn.Identity(), *tensors, mask,
                         is_causal=True, **more)


class Compiled(models.WithoutGradients):
    def test_a_compiled_model_leaves_the_graph_for_attention(self):
        _, ours = pair("mistral")
        wanted = ours(**inputs_of("mistral", models.padding("left"))).logits
        before = multihead.tasks_run()
        got = torch.compile(ours, backend="eager")(**inputs_of("mistral", models.padding("left"))).logits
        self.assertGreater(multihead.tasks_run(), before)
        real = models.padding("left").bool()
        self.assertLess((got - wanted)[real].abs().max(), TOLERANCE)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""attn_implementation="multihead" in training: gradients of every model, dropout, and losses step by step beside eager's."""

import copy
import unittest

import torch
import torch_truth as truth
import transformers
import transformers_models as models
from transformers_models import inputs_of, pair, padding

import multihead
from multihead.torch._gradient import draw_seed
from multihead.transformers import attention_forward


def judged(name):
    """(type, tolerance): of the models whose eager attention takes its softmax in float32, that."""
    return (torch.float64, 1e-11) if name in ("bert", "gpt2", "t5") else (torch.float32, models.TOLERANCE)


def labelled(name, mask=None):
    """Arguments of a model's call for a loss of what is no padding."""
    inputs = inputs_of(name, mask)
    labels = inputs["decoder_input_ids" if name == "t5" else "input_ids"].clone()
    if mask is not None and name != "t5":
        labels[mask == 0] = -100
        labels[:, :1 + int((mask[0] == 0).sum())] = -100  # nor what a row of padding on the left would predict
    return {**inputs, "labels": labels}


def gradients(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


class Gradients(unittest.TestCase):
    def close(self, found, wanted, tolerance):
        self.assertEqual(set(found), set(wanted))
        largest = max(float(gradient.abs().max()) for gradient in wanted.values())
        self.assertGreater(largest, 1e-3)
        for name, want in wanted.items():
            self.assertLessEqual(float((found[name] - want).abs().max()), tolerance * largest, name)

    def test_every_model(self):
        for name in models.MODELS:
            dtype, tolerance = judged(name)
            eager, ours = pair(name, dtype)
            for side in ("none", "left", "right"):
                with self.subTest(model=name, padding=side):
                    inputs = labelled(name, padding(side))
                    before = multihead.tasks_run()
                    found = gradients(ours, inputs)
                    self.assertGreater(multihead.tasks_run(), before)
                    self.close(found, gradients(eager, inputs), tolerance)
                    if name == "gpt_oss":
                        self.assertTrue(any("sinks" in each for each in found))
                    if name == "t5":
                        self.assertTrue(any("relative_attention_bias" in each for each in found))

    def test_packed(self):
        eager, ours = pair("llama")
        positions = torch.cat([torch.arange(5), torch.arange(9)]).expand(2, -1)
        inputs = {**labelled("llama"), "position_ids": positions, "use_cache": False}
        self.close(gradients(ours, inputs), gradients(eager, inputs), models.TOLERANCE)

    def test_through_weights(self):
        for name in ("bert", "gemma2", "t5", "gpt_oss"):
            dtype, tolerance = judged(name)
            found = []
            for model in pair(name, dtype):
                model.zero_grad()
                output = model(**inputs_of(name), output_attentions=True)
                attentions = [each for layers in models.attentions_of(output).values() for each in layers]
                sum(each.square().sum() for each in attentions).backward()
                found.append({each: parameter.grad for each, parameter in model.named_parameters()
                              if parameter.grad is not None and parameter.grad.any()})
                model.zero_grad()
            wanted, got = found
            self.close({each: got[each] for each in wanted}, wanted, tolerance)

    def test_checkpointing(self):
        """Dropout in it as well: what is computed again drops the same weights."""
        _, ours = pair("llama")
        model = copy.deepcopy(ours).train()
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.3
        found = []
        for again in (False, True):
            if again:
                model.gradient_checkpointing_enable()
            torch.manual_seed(5)
            found.append(gradients(model, {**labelled("llama"), "use_cache": False}))
        for name, want in found[0].items():
            self.assertTrue(torch.equal(found[1][name], want), name)

    def test_compiled(self):
        """A compiled model leaves its graph for attention, backward too."""
        _, ours = pair("mistral")
        inputs = labelled("mistral", padding("right"))
        wanted = gradients(ours, inputs)
        ours.zero_grad()
        torch.compile(ours, backend="aot_eager")(**inputs).loss.backward()
        self.close({name: parameter.grad for name, parameter in ours.named_parameters()}, wanted, models.TOLERANCE)
        ours.zero_grad()

    def test_a_mask_that_is_changed_before_backward(self):
        q = torch.randn(1, 2, 3, 4, requires_grad=True)
        mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
        out, _ = attention_forward(torch.nn.Identity(), q, q, q, mask)
        mask[..., 0] = False
        with self.assertRaisesRegex(RuntimeError, "modified by an inplace operation"):
            out.sum().backward()


class Dropout(unittest.TestCase):
    def test_the_formula_with_the_same_mask(self):
        q, k, v = (torch.randn(2, heads, 5, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
        sinks, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((4,), (1, 4, 5, 5)))
        inputs = q, k, v, sinks, bias
        torch.manual_seed(3)
        seed = int(draw_seed("cpu"))
        want, _, weights = truth.attention(q, k, v, bias=bias, sinks=sinks, softcap=2.0, scale=0.3,
                                           drop=truth.dropped((2, 4, 5, 5), 0.4, seed), dropout=(0.4,))
        torch.manual_seed(3)
        out, asked = attention_forward(torch.nn.Identity(), q, k, v, None, scaling=0.3, dropout=0.4, softcap=2.0, s_aux=sinks,
                                       position_bias=bias, is_causal=False, output_attentions=True)
        self.assertTrue(torch.allclose(out, want.transpose(1, 2), atol=1e-13))
        self.assertTrue(torch.allclose(asked, weights, atol=1e-13))
        above, beside = torch.randn_like(want), torch.randn_like(weights)
        wanted = torch.autograd.grad((want * above).sum() + (weights * beside).sum(), inputs)
        found = torch.autograd.grad((out * above.transpose(1, 2)).sum() + (asked * beside).sum(), inputs)
        for one, other in zip(found, wanted):
            self.assertTrue(torch.allclose(one, other, atol=1e-12))

    def test_gradcheck(self):
        shapes = (1, 2, 3, 4), (1, 1, 3, 4), (1, 1, 3, 2), (2,), (1, 2, 1, 3)
        inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

        def call(q, k, v, sinks, bias):
            torch.manual_seed(2)
            return attention_forward(torch.nn.Identity(), q, k, v, None, is_causal=True, sliding_window=2, softcap=1.5,
                                     dropout=0.3, s_aux=sinks, position_bias=bias, output_attentions=True)

        self.assertTrue(torch.autograd.gradcheck(call, inputs))

    def test_a_model_in_training(self):
        _, ours = pair("bert")
        model = copy.deepcopy(ours)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for layer in model.bert.encoder.layer:
            layer.attention.self.dropout.p = 0.25
        losses = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            losses.append(model.train()(**labelled("bert")).loss.item())
        self.assertEqual(losses[0], losses[1])
        self.assertNotEqual(losses[0], losses[2])
        self.assertEqual(len({model.eval()(**labelled("bert")).loss.item() for _ in range(3)}), 1)


class Training(unittest.TestCase):
    """A hundred steps of AdamW, eager and ours from one start on the same data: each loss, and that they fall."""

    def train(self, kind, configuration, batches, rate):
        losses = []
        for implementation in ("eager", "multihead"):
            torch.manual_seed(11)
            model = kind._from_config(configuration, attn_implementation=implementation).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)  # the quickest on the CPU
            before, found = multihead.tasks_run(), []
            for inputs in batches:
                optimizer.zero_grad()
                loss = model(**inputs).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                found.append(loss.item())
            self.assertEqual(multihead.tasks_run() > before, implementation == "multihead")
            losses.append(found)
        worst = max(abs(one - other) for one, other in zip(*losses))
        print(f"{kind.__name__}: losses {losses[1][0]:.3f} to {losses[1][-1]:.3f}, at most {worst:.1e} from eager's")
        self.assertEqual([len(each) for each in losses], [100, 100])
        self.assertLess(worst, 1e-3)
        for each in losses:
            self.assertLess(sum(each[-5:]) / 5, 0.7 * each[0])

    def test_bert_of_minilms_shape(self):
        """Which of two halves of the vocabulary a sequence is drawn from, padding on the right."""
        configuration = transformers.BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                                                intermediate_size=1536, vocab_size=64, max_position_embeddings=32,
                                                hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2)
        generator, batches = torch.Generator().manual_seed(1), []
        mask = (torch.arange(8)[None] < torch.tensor([[8], [5], [8], [6]])).long()
        for _ in range(100):
            labels = torch.randint(2, (4,), generator=generator)
            ids = torch.randint(2, 33, (4, 8), generator=generator) + 31 * labels[:, None]
            batches.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
        self.train(transformers.BertForSequenceClassification, configuration, batches, 5e-5)

    def test_gpt2(self):
        """Texts that go on as they began: the second half is the first again."""
        configuration = transformers.GPT2Config(n_embd=96, n_layer=2, n_head=4, vocab_size=24, n_positions=32, attn_pdrop=0.0,
                                                embd_pdrop=0.0, resid_pdrop=0.0)
        generator, batches = torch.Generator().manual_seed(2), []
        for _ in range(100):
            first = torch.randint(24, (8, 1), generator=generator)
            ids = (first + torch.arange(12)) % 24  # counting, from anywhere
            batches.append({"input_ids": ids, "labels": ids})
        self.train(transformers.GPT2LMHeadModel, configuration, batches, 1e-3)


if __name__ == "__main__":
    unittest.main()

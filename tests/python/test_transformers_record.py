# SPDX-License-Identifier: Apache-2.0
"""multihead.inspect.record(): what it watches, in which thread and block, and what it leaves behind."""

import contextvars
import threading
import unittest
import warnings

import torch
import transformers_models as models
from transformers_models import inputs_of, pair

from multihead import StatisticsRequest, inspect


class Watch(models.WithoutGradients):
    def test_another_implementation_is_exchanged_and_set_back(self):
        eager, ours = pair("llama")
        wanted = eager(**inputs_of("llama")).logits

        def hooks():
            return [(len(module._forward_pre_hooks), len(module._forward_hooks)) for module in eager.modules()]

        before = hooks()
        with inspect.record(eager) as seen:
            self.assertEqual(eager.config._attn_implementation, "multihead")
            self.assertTrue(torch.equal(eager(**inputs_of("llama")).logits, ours(**inputs_of("llama")).logits))
        self.assertEqual(len(seen.layers), 2)
        self.assertEqual(eager.config._attn_implementation, "eager")
        self.assertTrue(torch.equal(eager(**inputs_of("llama")).logits, wanted))
        with self.assertRaises(KeyError), inspect.record(eager):
            raise KeyError
        self.assertEqual(eager.config._attn_implementation, "eager")
        self.assertEqual(hooks(), before)

    def test_only_this_model_and_this_thread(self):
        (_, llama), (_, gpt2) = pair("llama"), pair("gpt2")
        with inspect.record(llama) as seen:
            gpt2(**inputs_of("gpt2"))
            thread = threading.Thread(target=lambda: contextvars.Context().run(llama, **inputs_of("llama")))
            thread.start()
            thread.join()
            self.assertEqual(seen.layers, [])
            llama(**inputs_of("llama"))
        llama(**inputs_of("llama"))
        self.assertEqual(len(seen.layers), 2)

    def test_blocks_that_overlap(self):
        eager, _ = pair("llama")
        first, second = inspect.record(eager), inspect.record(eager)
        one, two = first.__enter__(), second.__enter__()
        eager(**inputs_of("llama"))
        first.__exit__(None, None, None)  # the outer one ends first
        self.assertEqual(eager.config._attn_implementation, "multihead")
        eager(**inputs_of("llama"))
        second.__exit__(None, None, None)
        self.assertEqual((len(one.layers), len(two.layers)), (2, 4))
        self.assertEqual(eager.config._attn_implementation, "eager")

    def test_threads_on_one_model(self):
        eager, _ = pair("llama")
        inside, ended, counts = threading.Barrier(2), threading.Event(), {}

        def work(name):
            with inspect.record(eager) as seen:
                inside.wait(60)
                if name == "late":
                    ended.wait(60)
                with torch.no_grad():
                    eager(**inputs_of("llama"))
            ended.set()
            counts[name] = len(seen.layers)

        threads = [threading.Thread(target=work, args=(name,)) for name in ("early", "late")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(counts, {"early": 2, "late": 2})
        self.assertEqual(eager.config._attn_implementation, "eager")

    def test_calls_that_leave_nothing_are_told(self):
        eager, _ = pair("llama")
        with self.assertWarnsRegex(RuntimeWarning, "1 of 2 calls .* 'sdpa' within the block") as told, inspect.record(eager):
            eager(**inputs_of("llama"))
            eager.set_attn_implementation("sdpa")
            eager(**inputs_of("llama"))
        self.assertEqual(eager.config._attn_implementation, "eager")
        self.assertEqual(told.filename, __file__)
        with self.assertWarnsRegex(RuntimeWarning, "from another thread"), inspect.record(eager):
            thread = threading.Thread(target=lambda: contextvars.Context().run(eager, **inputs_of("llama")))
            thread.start()
            thread.join()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with self.assertRaises(KeyError), inspect.record(eager):
                eager.set_attn_implementation("sdpa")
                eager(**inputs_of("llama"))
                raise KeyError
            with inspect.record(eager), self.assertRaises(IndexError):
                eager(torch.tensor([[models.VOCABULARY]]))

    def test_nested(self):
        _, ours = pair("llama")
        with inspect.record(ours) as outer:
            ours(**inputs_of("llama"))
            with inspect.record(ours, request=StatisticsRequest(top=3)) as inner:
                ours(**inputs_of("llama"))
        self.assertEqual((len(outer.layers), len(inner.layers)), (4, 2))
        self.assertEqual([layer.step for layer in outer.layers], [0, 0, 1, 1])
        self.assertEqual((outer.layers[2].top_keys.shape[-1], inner.layers[0].top_keys.shape[-1]), (1, 3))
        self.assertTrue(torch.equal(outer.layers[2].entropy, inner.layers[0].entropy))

    def test_a_call_that_fails(self):
        _, ours = pair("llama")
        with inspect.record(ours) as seen:
            with self.assertRaises(IndexError):
                ours(torch.tensor([[models.VOCABULARY]]))
            ours(**inputs_of("llama"))
        self.assertEqual({len(step) for step in seen.steps if step}, {2})

    def test_with_gradients(self):
        _, ours = pair("llama")
        with torch.enable_grad(), inspect.record(ours) as seen:
            ours.zero_grad()
            ours(**inputs_of("llama")).logits.square().sum().backward()
        recorded = [weight.grad for weight in ours.parameters()]
        ours.zero_grad()
        with torch.enable_grad():
            ours(**inputs_of("llama")).logits.square().sum().backward()
        for one, other in zip(recorded, ours.parameters()):
            self.assertTrue(torch.equal(one, other.grad))
        ours.zero_grad()
        self.assertFalse(seen.layers[0].entropy.requires_grad)

    def test_refusals(self):
        _, ours = pair("llama")
        for error, words, model, named in (
                (TypeError, "model of Transformers", torch.nn.Linear(2, 2), {}),
                (TypeError, "StatisticsRequest", ours, {"request": True}),
                (ValueError, "norm_weighted", ours, {"request": StatisticsRequest(norm_weighted=True)}),
                (ValueError, "x is among", ours, {"request": StatisticsRequest(classes={"x": [0]}),
                                                  "token_classes": {"x": [1]}})):
            with self.subTest(words=words), self.assertRaisesRegex(error, words), inspect.record(model, **named):
                self.fail("it was accepted")
        with inspect.record(ours) as seen:
            pass
        with self.assertRaisesRegex(ValueError, "nothing was recorded"):
            seen.view(["a"])


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The process around a call: what importing brings, threads of Python that go on, info, explain, help."""

import inspect
import pydoc
import subprocess
import sys
import threading
import time
import unittest

import numpy as np
from reference import draw

import multihead


class Import(unittest.TestCase):
    def test_no_framework_comes_along(self):
        program = "import sys, multihead; print(*sorted(name.partition('.')[0] for name in sys.modules))"
        names = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        self.assertIn("multihead", names)
        self.assertFalse(set(names) & {"numpy", "torch", "ml_dtypes", "transformers", "typing_extensions"})

    def test_everything_public_says_what_it_is(self):
        self.assertEqual(sorted(multihead.__all__), multihead.__all__)
        for name in multihead.__all__:
            what = getattr(multihead, name)
            if name != "__version__":
                self.assertTrue(inspect.getdoc(what), name)
                self.assertIn(name, pydoc.render_doc(what))
        for function in (multihead.attention, multihead.multi_head_attention, multihead.MultiHeadAttention.__call__):
            self.assertIn("Raises TypeError", function.__doc__)
            self.assertNotIn("arg0", str(inspect.signature(function)))
        self.assertEqual(multihead.__version__, multihead.info().version)


class Threads(unittest.TestCase):
    def test_other_threads_go_on(self):
        """A thread counts while one long call runs. With the lock held it could not count at all."""
        q = draw(1, 8, 2048, 64)
        stop, counted, started = threading.Event(), [0], threading.Event()

        def count():
            started.set()
            while not stop.is_set():
                counted[0] += 1
                time.sleep(0)  # lets the lock go

        counter = threading.Thread(target=count)
        counter.start()
        started.wait()
        switch = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # only a lock that is let go lets the other thread run
        try:
            before = counted[0]
            multihead.attention(q, q, q, threads=1)
            during = counted[0] - before
        finally:
            sys.setswitchinterval(switch)
            stop.set()
            counter.join()
        self.assertGreater(during, 0)

    def test_concurrent_calls_give_the_same_bits(self):
        q, k, v = (draw(2, 4, 130, 32, seed=seed) for seed in (1, 2, 3))
        layer = multihead.MultiHeadAttention(4, order="in_out", qkv=draw(32, 96), out=draw(32, 32))
        x = draw(2, 50, 32)
        wanted = multihead.attention(q, k, v, query_offset=0, window=40).tobytes(), layer(x).tobytes()
        wrong = []

        def work(threads):
            out = np.empty_like(q)
            for _ in range(30):
                found = multihead.attention(q, k, v, query_offset=0, window=40, threads=threads, out=out).tobytes()
                if (found, layer(x, threads=threads).tobytes()) != wanted:
                    wrong.append(threads)

        workers = [threading.Thread(target=work, args=(1 + i % 2,)) for i in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(wrong, [])

    def test_how_many(self):
        machine = multihead.info().threads
        self.assertEqual(multihead.get_num_threads(), machine)
        try:
            multihead.set_num_threads(3)
            self.assertEqual(multihead.get_num_threads(), 3)
            self.assertEqual(multihead.explain(q_len=4096, head_dim=64).threads, 3)
            self.assertEqual(multihead.explain(q_len=4, head_dim=64).threads, 1)
            self.assertEqual(multihead.explain(q_len=4, head_dim=64, threads=2).threads, 2)
            for error, bad in ((ValueError, 0), (ValueError, -1), (TypeError, 1.5), (TypeError, "2")):
                with self.assertRaises(error):
                    multihead.set_num_threads(bad)
            self.assertEqual(multihead.get_num_threads(), 3)
        finally:
            multihead.set_num_threads(None)
        self.assertEqual(multihead.get_num_threads(), machine)


class Plans(unittest.TestCase):
    def test_info(self):
        info = multihead.info()
        self.assertIn(info.chosen, info.targets)
        self.assertIn("baseline", info.targets)
        self.assertTrue(info.models)
        self.assertGreaterEqual(info.threads, 1)

    def test_explain(self):
        plan = multihead.explain(q_len=100, kv_len=200, head_dim=64, heads=8, kv_heads=2, batch=3, causal="bottom_right",
                                 softcap=30.0, target="baseline")
        self.assertEqual((plan.target, plan.kernel), ("baseline", "attention_f32_baseline"))
        self.assertEqual(plan.visible_pairs, 3 * 8 * sum(range(101, 201)))
        self.assertEqual(plan.flops, 2 * plan.visible_pairs * 128)
        self.assertIn("softcap", plan.terms)
        self.assertEqual(multihead.explain(q_len=13, head_dim=4, dtype="bfloat16", target="baseline").kernel,
                         "attention_bf16_baseline")
        few = multihead.explain(q_len=2, head_dim=4, heads=6, kv_heads=2, dtype="float16", target="baseline", threads=1)
        self.assertEqual((few.kernel, few.row_block, few.tasks), ("decode_f16_baseline", 6, 2))
        for error, sentence, given in (
                (ValueError, "q_len", {"kv_len": 3, "causal": True}), (ValueError, "dtype is 'int8'", {"dtype": "int8"}),
                (TypeError, "'casual'", {"casual": True}), (ValueError, "heads", {"heads": 3, "kv_heads": 2}),
                (TypeError, "batch has type float", {"batch": 1.5}), (ValueError, "sse", {"target": "sse"})):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                multihead.explain(q_len=2, head_dim=4, **given)
            self.assertIn(sentence, str(caught.exception))

    def test_tasks_run(self):
        q = draw(1, 1, 4, 4)
        chosen, total = multihead.tasks_run(multihead.info().chosen), multihead.tasks_run()
        multihead.attention(q, q, q)
        self.assertEqual(multihead.tasks_run(multihead.info().chosen), chosen + 1)
        self.assertEqual(multihead.tasks_run(), total + 1)
        with self.assertRaises(ValueError):
            multihead.tasks_run("sse")


if __name__ == "__main__":
    unittest.main()

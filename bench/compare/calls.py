# SPDX-License-Identifier: Apache-2.0
"""What peers share: what one lacks, models of the sibling benchmarks, calls that keep their results."""

import importlib.util
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import environment  # noqa: E402


class Cannot(Exception):
    """What a peer lacks for a problem."""


def sibling(name):
    """bench/NAME/compare.py as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_compare", environment.SOURCE / "bench" / name / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoder_model():
    import transformers
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    folder = environment.CACHE / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        raise Cannot("the model is not in the cache: .ci/fetch-model brings it")
    return transformers.AutoModel.from_pretrained(folder).eval().float()


def folded(problem, q):
    """The queries of a kv head as its rows: (batch, kv_heads, queries each, head_dim)."""
    return q.reshape(problem.batch, problem.kv_heads, -1, problem.head_dim)


def faster(ways):
    """Of ways to do the same, the one that takes least of three."""
    def least(way):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            way()
            times.append(time.perf_counter() - start)
        return min(times)
    return min(ways, key=least)


def keeping(run):
    """(call, result) of what returns its results."""
    kept = [None]

    def call():
        kept[0] = run()

    def result():
        import numpy
        values = kept[0] if isinstance(kept[0], (tuple, list)) else [kept[0]]
        return [value if isinstance(value, numpy.ndarray) else value.detach().double().numpy() for value in values]
    return call, result

# SPDX-License-Identifier: Apache-2.0
"""Microseconds of a call from Python: the README's example, one decoded token, and the milliseconds of importing.

    python bench/python/sample.py     the package and NumPy must be installed; least and median of many repetitions
"""

import statistics
import subprocess
import sys
import timeit

import numpy as np

import multihead

REPETITIONS, CALLS, IMPORTS = 100, 1000, 20


def rows(*shape, dtype=np.float64):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def show(name, seconds, unit):
    scale = {"us": 1e6, "ms": 1e3}[unit]
    print(f"{name:<58} least {min(seconds) * scale:7.2f} {unit}   median {statistics.median(seconds) * scale:7.2f} {unit}")


def main():
    given = {
        "multi_head_attention": multihead.multi_head_attention, "attention": multihead.attention,
        "X": np.array([[1.0, 0, 1], [0, 1, 1]]), "Wq": rows(3, 6), "Wk": rows(3, 6), "Wv": rows(3, 6), "Wo": rows(6, 3),
        "Y": np.empty((2, 3)), "q": rows(1, 8, 1, 64, dtype=np.float32), "k": rows(1, 8, 128, 64, dtype=np.float32),
        "o": np.empty((1, 8, 1, 64), np.float32), "t": rows(1, 1, 1, 1, dtype=np.float32), "to": np.empty((1, 1, 1, 1), np.float32)}
    for call in ("multi_head_attention(X, Wq, Wk, Wv, Wo, 2, out=Y)", "multi_head_attention(X, Wq, Wk, Wv, Wo, 2)",
                 "attention(t, t, t, out=to)", "attention(q, k, k, threads=1, out=o)"):
        show(call, [seconds / CALLS for seconds in timeit.repeat(call, globals=given, number=CALLS, repeat=REPETITIONS)], "us")
    program = "import time; start = time.perf_counter(); import multihead; print(time.perf_counter() - start)"
    times = [float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
             for _ in range(IMPORTS)]
    show("import multihead", times, "ms")
    info = multihead.info()
    print(f"multihead {info.version}, {info.chosen}, {info.processor}, {info.threads} threads; Python {sys.version.split()[0]}, "
          f"NumPy {np.__version__}")


if __name__ == "__main__":
    main()

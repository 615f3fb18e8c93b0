# SPDX-License-Identifier: Apache-2.0
"""Gradients of attention beside PyTorch's: one thread each, in turn, by the processor's time of that thread.

    python bench/python/backward.py [length ..]     the package and PyTorch must be installed; least of several runs
"""

import sys
import time

import torch
import torch.nn.functional as F

import multihead

LENGTHS, HEAD_DIMS, RUNS = (1024, 4096), (64, 128), 5


def seconds_of(call):
    start = time.thread_time()
    call()
    return time.thread_time() - start


def compare(dtype, length, head_dim, causal):
    heads = max(1, 4096 // length)
    q, k, v = (torch.randn(1, heads, length, head_dim).to(dtype).requires_grad_() for _ in range(3))
    d_out = torch.randn(1, heads, length, head_dim).to(dtype)
    arrays = [x.detach() for x in (q, k, v)]
    out, lse = multihead.attention(*arrays, causal=causal, threads=1, return_lse=True)
    ours, theirs = [], []
    for _ in range(RUNS):
        ours.append(seconds_of(lambda: multihead.attention_backward(d_out, *arrays, out, lse, causal=causal, threads=1)))
        result = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        theirs.append(seconds_of(lambda: result.backward(d_out)))
    pairs = heads * length * ((length + 1) / 2 if causal else length)
    rates = [10 * pairs * head_dim / min(seconds) * 1e-9 for seconds in (ours, theirs)]
    print(f"{str(dtype)[6:]:<9} {length:>6} {head_dim:>4} {'causal' if causal else '':<7}"
          f" multihead {rates[0]:7.1f} GFLOPS   PyTorch {rates[1]:7.1f} GFLOPS   {rates[0] / rates[1]:5.2f} times", flush=True)


def main():
    torch.set_num_threads(1)
    info = multihead.info()
    print(f"multihead {info.version}, {info.chosen}, {info.processor}; PyTorch {torch.__version__}")
    for dtype in (torch.float32, torch.bfloat16):
        for length in [int(word) for word in sys.argv[1:]] or LENGTHS:
            for head_dim in HEAD_DIMS:
                for causal in (False, True):
                    compare(dtype, length, head_dim, causal)


if __name__ == "__main__":
    main()

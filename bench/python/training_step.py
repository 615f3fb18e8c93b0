# SPDX-License-Identifier: Apache-2.0
"""A training step beside PyTorch's: forward and backward of the function and of the layer, float32, one thread.

    python bench/python/training_step.py [REPETITIONS]     the package and PyTorch must be installed

Ours and PyTorch's take turns, so that what else the machine does meets both. Least and median of the repetitions, 15 unless
said. PyTorch's layer is compared without dropout, and with: its kernel without weights then is another one.
"""

import statistics
import sys
import time

import torch

import multihead
import multihead.torch as ours

THEIRS = torch.nn.functional.scaled_dot_product_attention


def step(call, tensors, forward):
    """Seconds of one call, or of one with its backward pass."""
    start = time.perf_counter()
    out = call(*tensors)
    if not forward:
        out.backward(torch.ones_like(out))
    seconds = time.perf_counter() - start
    for tensor in tensors:
        tensor.grad = None
    return seconds


def show(name, calls, tensors, repetitions):
    """calls: (ours, PyTorch's)."""
    for part, forward in (("forward", True), ("forward and backward", False)):
        for call in calls:
            step(call, tensors, forward)  # the first is slower
        pairs = [[step(call, tensors, forward) * 1e3 for call in calls] for _ in range(repetitions)]
        mine, theirs = zip(*pairs)
        print(f"{name:<48} {part:<21} multihead least {min(mine):8.2f} ms median {statistics.median(mine):8.2f}   "
              f"PyTorch {min(theirs):8.2f} {statistics.median(theirs):8.2f}   PyTorch / multihead "
              f"{min(theirs) / min(mine):5.2f}")


def functions(length, repetitions):
    tensors = [torch.randn(1, 8, length, 64).requires_grad_() for _ in range(3)]
    for name, options in (("", {}), (", causal", {"is_causal": True}), (", dropout 0.1", {"dropout_p": 0.1})):
        calls = [lambda *qkv, call=call, options=options: call(*qkv, **options)
                 for call in (ours.scaled_dot_product_attention, THEIRS)]
        show(f"function, 8 heads of 64, {length} tokens{name}", calls, tensors, repetitions)


def layers(batch, length, repetitions):
    for dropout in (0.0, 0.1):
        theirs = torch.nn.MultiheadAttention(384, 12, dropout, batch_first=True)
        mine = ours.MultiheadAttention(384, 12, dropout, batch_first=True)
        mine.load_state_dict(theirs.state_dict())
        calls = [lambda x, module=module: module(x, x, x, need_weights=False)[0] for module in (mine, theirs)]
        x = torch.randn(batch, length, 384).requires_grad_()
        show(f"layer, 12 heads of 32, {batch} x {length}, dropout {dropout}", calls, [x], repetitions)


def main():
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    torch.manual_seed(1)
    for length in (256, 1024):
        functions(length, repetitions)
    layers(8, 128, repetitions)
    info = multihead.info()
    print(f"multihead {info.version}, {info.chosen}, {info.processor}; PyTorch {torch.__version__}; one thread, float32")


if __name__ == "__main__":
    main()

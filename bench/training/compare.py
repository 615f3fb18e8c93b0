#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokens a second of training the task four-relations: this library beside PyTorch, in turns, one model on one data.

  compare.py [--build DIR] [--threads N] [--rounds N]

PyTorch comes from PyPI into an environment in the cache; its model is the same one with the same initial
weights, AdamW is its fused one. Before anything is timed both train a while, and their losses are compared. The build
folder is one configured with -DMULTIHEAD_BENCH=ON.
"""

import argparse
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(SOURCE / "bench"))
import environment  # noqa: E402

BATCHES, SEQUENCES, LENGTH, TOKENS, PAYLOADS, WIDTH, HEADS = 50, 64, 16, 16, 16, 64, 4
AGREEMENT = 2e-3  # of losses after the first steps
STEPS = 20        # of a turn


def data():
    """ids (batches, 2, positions) and targets (batches, 4, positions)."""
    import numpy
    random = numpy.random.default_rng(1)
    shape = (BATCHES, SEQUENCES, LENGTH)
    tokens = numpy.empty(shape, numpy.int64)
    for batch in tokens:
        for sequence in batch:
            sequence[:] = random.permutation(numpy.repeat(random.permutation(TOKENS)[:LENGTH // 2], 2))
    payloads = random.integers(0, PAYLOADS, shape)
    place = numpy.arange(LENGTH)
    equal = (tokens[..., :, None] == tokens[..., None, :]) & ~numpy.eye(LENGTH, dtype=bool)
    goals = [numpy.broadcast_to((place - 1) % LENGTH, shape), numpy.broadcast_to(LENGTH - 1 - place, shape),
             numpy.broadcast_to((place + 3) % LENGTH, shape), equal.argmax(-1)]
    flat = [array.reshape(BATCHES, -1) for array in (tokens, payloads, *(numpy.take_along_axis(payloads, g, -1) for g in goals))]
    return numpy.stack(flat[:2], 1), numpy.stack(flat[2:], 1)


class Torch:
    name = "PyTorch"

    def __init__(self, ids, targets, threads):
        import torch
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.torch = torch
        self.ids = torch.from_numpy(ids).view(BATCHES, 2, SEQUENCES, LENGTH)
        self.targets = torch.from_numpy(targets).view(BATCHES, 4, SEQUENCES, LENGTH).permute(0, 2, 3, 1).contiguous()
        nn, steps = torch.nn, self
        steps.count = 0

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.token, self.payload = nn.Embedding(TOKENS, WIDTH), nn.Embedding(PAYLOADS, WIDTH)
                self.position = nn.Embedding(LENGTH, WIDTH)
                self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
                self.out, self.logits = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4 * PAYLOADS)

            def forward(self, ids):
                x = self.token(ids[0]) + self.payload(ids[1]) + self.position.weight
                split = self.qkv(self.norm(x)).view(SEQUENCES, LENGTH, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
                seen = nn.functional.scaled_dot_product_attention(split[0], split[1], split[2])
                return self.logits(x + self.out(seen.transpose(1, 2).reshape(SEQUENCES, LENGTH, WIDTH)))

        self.model = Model()
        with torch.no_grad():
            for table in (self.model.token, self.model.payload, self.model.position):
                table.weight.normal_(0, 0.02)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0, fused=True)

    def save(self, path):
        """The weights under the names and in the order (in, out) of a Transformer."""
        import safetensors.torch
        m = self.model
        linears = {"encoder.0.attention.qkv": m.qkv, "encoder.0.attention.out": m.out, "logits": m.logits}
        tensors = {"encoder.embedding.0": m.token.weight, "encoder.embedding.1": m.payload.weight,
                   "encoder.positions": m.position.weight, "encoder.0.attention.norm.weight": m.norm.weight[None],
                   "encoder.0.attention.norm.bias": m.norm.bias[None]}
        for name, linear in linears.items():
            tensors[name + ".weight"], tensors[name + ".bias"] = linear.weight.T, linear.bias[None]
        safetensors.torch.save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)

    def run(self, steps):
        torch = self.torch
        start = time.perf_counter()
        for _ in range(steps):
            batch = self.count % BATCHES
            self.count += 1
            self.optimizer.zero_grad()
            logits = self.model(self.ids[batch]).view(-1, PAYLOADS)
            loss = torch.nn.functional.cross_entropy(logits, self.targets[batch].reshape(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return time.perf_counter() - start, loss.item()


class Ours:
    name = "multihead"

    def __init__(self, program, folder, threads):
        self.process = subprocess.Popen([program, folder, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        seconds, loss = self.process.stdout.readline().split()
        return float(seconds), float(loss)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=SOURCE / "build" / "release")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    environment.enter()

    import numpy
    import torch
    with tempfile.TemporaryDirectory() as folder:
        ids, targets = data()
        numpy.save(pathlib.Path(folder) / "ids.npy", ids)
        numpy.save(pathlib.Path(folder) / "targets.npy", targets)
        peer = Torch(ids, targets, arguments.threads)
        peer.save(pathlib.Path(folder) / "start.safetensors")
        runners = [Ours(arguments.build / "multihead_training_bench", folder, arguments.threads), peer]
        losses = [runner.run(STEPS)[1] for runner in runners]
        assert abs(losses[0] - losses[1]) < AGREEMENT, f"the losses are {losses}"
        seconds = {runner.name: [] for runner in runners}
        for turn in range(arguments.rounds):
            for runner in runners if turn % 2 == 0 else runners[::-1]:
                seconds[runner.name].append(runner.run(STEPS)[0])
        print(f"{environment.processor()}, {platform.system()}, threads: {arguments.threads}, rounds: {arguments.rounds} of {STEPS} steps, "
              f"torch {torch.__version__}; loss after {STEPS} steps {losses[0]:.4f} and {losses[1]:.4f}")
        for runner in runners:
            rates = sorted(STEPS * SEQUENCES * LENGTH / second for second in seconds[runner.name])
            ratio = statistics.median(o / t for o, t in zip(seconds[runner.name], seconds["multihead"]))
            quarter = len(rates) // 4
            print(f"{runner.name:10} {statistics.median(rates):9.0f} tokens/s ({rates[quarter]:.0f} to {rates[-1 - quarter]:.0f})  "
                  f"best {rates[-1]:.0f}  multihead is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()

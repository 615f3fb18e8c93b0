#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokens a second of training the model of the task translation: this library beside PyTorch, in turns, on one data.

  compare.py [--build DIR] [--threads N] [--rounds N]

Tokens are drawn at random, sentences are as long as the task's are (5 to 20 words in, 4 to 12 out). PyTorch pads the
sentences of a batch to the longest, as its users do; this library packs them. Only real tokens are counted. PyTorch
comes from PyPI into an environment in the cache; its model starts from the same weights, AdamW is its fused one.
Before anything is timed both train a while, and their losses are compared. The build folder is one configured with
-DMULTIHEAD_BENCH=ON.
"""

import argparse
import importlib.util
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
BATCHES, SENTENCES, WIDTH, HEADS, INNER = 40, 64, 64, 4, 256
AGREEMENT = 5e-3  # of losses after the first steps
STEPS = 10        # of a turn


def sibling():
    """bench/training/compare.py, which knows how to get PyTorch and to talk to a program of ours."""
    spec = importlib.util.spec_from_file_location("training_compare", SOURCE / "bench" / "training" / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sizes(program):
    """Of the model: source and target vocabulary, positions."""
    return [int(number) for number in subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()]


def data(source_words, target_words):
    """Lists of batches of sentences: source, target (after its first token 0), wanted (with its last token 1)."""
    import numpy
    draw = numpy.random.default_rng(1)
    batches = []
    for _ in range(BATCHES):
        source, target, wanted = [], [], []
        for _ in range(SENTENCES):
            source.append(draw.integers(2, source_words, draw.integers(6, 19)))
            words = draw.integers(2, target_words, draw.integers(4, 13))
            target.append(numpy.concatenate([[0], words]))
            wanted.append(numpy.concatenate([words, [1]]))
        batches.append((source, target, wanted))
    return batches


def save(batches, folder):
    import numpy
    for side, name in enumerate(("source", "target", "wanted")):
        numpy.save(folder / f"{name}_lengths.npy", numpy.array([[len(s) for s in batch[side]] for batch in batches]))
        numpy.save(folder / f"{name}.npy", numpy.concatenate([s for batch in batches for s in batch[side]]))


class Torch:
    name = "PyTorch"

    def __init__(self, batches, extents, threads):
        import torch
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.torch, self.count = torch, 0
        pad = lambda rows, value: torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], True, value)
        self.batches = [(pad(source, 0), pad([row * 0 + 1 for row in source], 0).bool(), pad(target, 0), pad(wanted, -100))
                        for source, target, wanted in batches]
        self.model = self.make(*extents)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0, fused=True)

    def make(self, source_words, target_words, positions):
        nn, functional = self.torch.nn, self.torch.nn.functional

        class Attention(nn.Module):
            def __init__(self, cross):
                super().__init__()
                self.norm, self.cross, self.out = nn.LayerNorm(WIDTH), cross, nn.Linear(WIDTH, WIDTH)
                self.q, self.rest = (nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)) if cross else (nn.Linear(WIDTH, 3 * WIDTH), None)

            def forward(self, x, memory=None, mask=None, causal=False):
                split = lambda y, parts: y.view(*y.shape[:2], parts, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
                h = self.norm(x)
                q, k, v = (*split(self.q(h), 1), *split(self.rest(memory), 2)) if self.cross else split(self.q(h), 3)
                seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
                return x + self.out(seen.transpose(1, 2).reshape(x.shape))

        class FeedForward(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

            def forward(self, x):
                return x + self.down(functional.gelu(self.up(self.norm(x))))

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                table = lambda rows: nn.Embedding(rows, WIDTH)
                self.source, self.source_places = table(source_words), table(positions)
                self.target, self.target_places = table(target_words), table(positions)
                self.encoder, self.encoder_mlp, self.encoder_norm = Attention(False), FeedForward(), nn.LayerNorm(WIDTH)
                self.decoder, self.crossing, self.decoder_mlp = Attention(False), Attention(True), FeedForward()
                self.decoder_norm, self.logits = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, target_words)
                for one in (self.source, self.source_places, self.target, self.target_places):
                    nn.init.normal_(one.weight, std=0.02)

            def forward(self, source, visible, target):
                mask = visible[:, None, None, :]
                x = self.source(source) + self.source_places.weight[:source.shape[1]]
                memory = self.encoder_norm(self.encoder_mlp(self.encoder(x, mask=mask)))
                y = self.target(target) + self.target_places.weight[:target.shape[1]]
                y = self.crossing(self.decoder(y, causal=True), memory, mask)
                return self.logits(self.decoder_norm(self.decoder_mlp(y)))

        return Model()

    def save(self, path):
        """The weights under the names and in the order (in, out) of a Transformer."""
        import safetensors.torch
        m = self.model
        tensors = {"encoder.embedding.0": m.source.weight, "encoder.positions": m.source_places.weight,
                   "decoder.embedding.0": m.target.weight, "decoder.positions": m.target_places.weight}
        modules = {"encoder.norm": m.encoder_norm, "decoder.norm": m.decoder_norm, "logits": m.logits}
        for name, part in (("encoder.0.attention", m.encoder), ("decoder.0.attention", m.decoder), ("decoder.0.cross", m.crossing)):
            modules |= {f"{name}.norm": part.norm, f"{name}.out": part.out}
            if part.cross:
                tensors |= {f"{name}.q.weight": part.q.weight.T, f"{name}.q.bias": part.q.bias[None]}
                for letter, weight, bias in zip("kv", part.rest.weight.chunk(2), part.rest.bias.chunk(2)):
                    tensors |= {f"{name}.{letter}.weight": weight.T, f"{name}.{letter}.bias": bias[None]}
            else:
                modules[f"{name}.qkv"] = part.q
        for name, part in (("encoder.0.feed_forward", m.encoder_mlp), ("decoder.0.feed_forward", m.decoder_mlp)):
            modules |= {f"{name}.norm": part.norm, f"{name}.up": part.up, f"{name}.down": part.down}
        for name, module in modules.items():
            weight = module.weight
            tensors |= {f"{name}.weight": weight.T if weight.dim() == 2 else weight[None], f"{name}.bias": module.bias[None]}
        safetensors.torch.save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)

    def run(self, steps):
        torch = self.torch
        start = time.perf_counter()
        for _ in range(steps):
            source, visible, target, wanted = self.batches[self.count % BATCHES]
            self.count += 1
            self.optimizer.zero_grad()
            logits = self.model(source, visible, target)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return time.perf_counter() - start, loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=SOURCE / "build" / "release")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    shared = sibling()
    shared.environment.enter()

    import torch
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        program = arguments.build / "multihead_translation_bench"
        extents = sizes(program)
        batches = data(*extents[:2])
        save(batches, folder)
        peer = Torch(batches, extents, arguments.threads)
        peer.save(folder / "start.safetensors")
        runners = [shared.Ours(program, folder, arguments.threads), peer]
        losses = [runner.run(STEPS)[1] for runner in runners]
        assert abs(losses[0] - losses[1]) < AGREEMENT, f"the losses are {losses}"
        seconds = {runner.name: [] for runner in runners}
        tokens = []  # of each turn, read in and asked for
        for turn in range(arguments.rounds):
            first = (turn + 1) * STEPS
            tokens.append(sum(len(s) for i in range(first, first + STEPS) for side in batches[i % BATCHES][:2] for s in side))
            for runner in runners if turn % 2 == 0 else runners[::-1]:
                seconds[runner.name].append(runner.run(STEPS)[0])
        print(f"{shared.environment.processor()}, {platform.system()}, threads: {arguments.threads}, rounds: {arguments.rounds} of {STEPS} steps, "
              f"torch {torch.__version__}; loss after {STEPS} steps {losses[0]:.4f} and {losses[1]:.4f}")
        for runner in runners:
            rates = sorted(count / second for count, second in zip(tokens, seconds[runner.name]))
            ratio = statistics.median(o / t for o, t in zip(seconds[runner.name], seconds["multihead"]))
            quarter = len(rates) // 4
            print(f"{runner.name:10} {statistics.median(rates):9.0f} tokens/s ({rates[quarter]:.0f} to {rates[-1 - quarter]:.0f})  "
                  f"best {rates[-1]:.0f}  multihead is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()

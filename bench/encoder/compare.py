#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sequences a second of an encoder: this library beside OpenVINO and PyTorch, in turns, on the same ids.

float32 and, of this library and OpenVINO, products of bfloat16.

  compare.py [--model DIR] [--build DIR] [--threads N] [--rounds N]

The peers come from PyPI into an environment in the cache. Before anything is timed the outputs are compared.
The build folder is one configured with -DMULTIHEAD_BENCH=ON.
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

CASES = [(1, 16), (1, 128), (32, 128)]
AGREEMENT = {"float32": 5e-5, "bfloat16": 0.1}  # of hidden states, whose size is about 1


class Ours:
    def __init__(self, program, model, threads, folder, products="float32"):
        self.name = "multihead" if products == "float32" else f"multihead {products}"
        self.folder = folder / products
        self.folder.mkdir(exist_ok=True)
        self.process = subprocess.Popen([program, model, str(threads), products], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, ids, repeats, processor=False):
        """Seconds of one pass, on the clock or of the processor."""
        import numpy
        path = self.folder / f"{ids.shape[0]}x{ids.shape[1]}.npy"
        if not path.exists():
            numpy.save(path, ids.reshape(-1))
        self.process.stdin.write(f"{path} {ids.shape[0]} {ids.shape[1]} {repeats}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline().split()[processor])

    def output(self, ids):
        import numpy
        self.run(ids, 1)
        return numpy.load(self.folder / f"{ids.shape[0]}x{ids.shape[1]}.npy.out.npy")


class Torch:
    name = "PyTorch"

    def __init__(self, model, threads):
        import torch
        torch.set_num_threads(threads)
        self.torch, self.model = torch, model

    def output(self, ids):
        with self.torch.inference_mode():
            return self.model(input_ids=self.torch.from_numpy(ids)).last_hidden_state.float().numpy()

    def run(self, ids, repeats):
        start = time.perf_counter()
        for _ in range(repeats):
            self.output(ids)
        return (time.perf_counter() - start) / repeats


class OpenVino:
    def __init__(self, model, threads, precision):
        import openvino
        import torch
        self.name = "OpenVINO" if precision == "f32" else f"OpenVINO {precision}"
        example = {"input_ids": torch.ones(2, 8, dtype=torch.int64), "attention_mask": torch.ones(2, 8, dtype=torch.int64)}
        self.compiled = openvino.Core().compile_model(openvino.convert_model(model, example_input=example), "CPU", {
            "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1})

    def output(self, ids):
        import numpy
        return self.compiled({"input_ids": ids, "attention_mask": numpy.ones_like(ids)})[0]

    run = Torch.run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=environment.CACHE / "all-MiniLM-L6-v2")
    parser.add_argument("--build", type=pathlib.Path, default=SOURCE / "build" / "release")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    environment.enter()

    import numpy
    import torch
    import transformers
    model = transformers.AutoModel.from_pretrained(arguments.model).eval().float()
    with tempfile.TemporaryDirectory() as folder:
        program = arguments.build / "multihead_encoder_bench"
        ours = [Ours(program, arguments.model, arguments.threads, pathlib.Path(folder), products) for products in AGREEMENT]
        runners = [ours[0], Torch(model, arguments.threads), OpenVino(model, arguments.threads, "f32"), ours[1],
                   OpenVino(model, arguments.threads, "bf16")]
        print(f"{environment.processor()}, {platform.system()}, threads: {arguments.threads}, rounds: {arguments.rounds}, "
              f"torch {torch.__version__}, medians (and quartiles) of sequences a second")
        for batch, length in CASES:
            ids = numpy.random.default_rng(1).integers(1000, 30000, (batch, length))
            outputs = [runner.output(ids) for runner in runners]
            for runner, output in zip(runners[1:4], outputs[1:4]):
                worst = abs(outputs[0] - output).max()
                assert worst < AGREEMENT["bfloat16" if runner is ours[1] else "float32"], f"{runner.name} differs by {worst}"
            repeats = max(1, round(0.2 / runners[0].run(ids, 1)))
            seconds = {runner.name: [] for runner in runners}
            for turn in range(arguments.rounds):
                for runner in runners if turn % 2 == 0 else runners[::-1]:
                    seconds[runner.name].append(runner.run(ids, repeats))
            for runner in runners:
                rates = sorted(batch / second for second in seconds[runner.name])
                ratio = statistics.median(o / t for o, t in zip(seconds[runner.name], seconds["multihead"]))
                quarter = len(rates) // 4
                print(f"{batch:3} x {length:<4} {runner.name:14} {statistics.median(rates):8.1f}  "
                      f"({rates[quarter]:.1f} to {rates[-1 - quarter]:.1f})  multihead is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()

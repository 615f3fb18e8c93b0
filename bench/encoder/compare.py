#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sequences a second of an encoder in float32: this library beside OpenVINO and PyTorch, in turns, on the same ids.

  compare.py [--model DIR] [--build DIR] [--threads N] [--rounds N]

The peers come from PyPI into an environment under the build folder. Before anything is timed the outputs are compared.
The build folder is one configured with -DMULTIHEAD_BENCH=ON.
"""

import argparse
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ["torch==2.15.0", "transformers==5.24.0", "openvino==2026.4.1"]
CASES = [(1, 16), (1, 128), (32, 128)]
AGREEMENT = 5e-5  # of hidden states, whose size is about 1


def in_environment(build):
    """Starts this file again with the peers at hand."""
    folder = build / "peers"
    if pathlib.Path(sys.prefix) == folder:
        return
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    os.execv(folder / "bin" / "python", [str(folder / "bin" / "python"), *sys.argv])


class Ours:
    name = "multihead"

    def __init__(self, program, model, threads, folder):
        self.folder = folder
        self.process = subprocess.Popen([program, model, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, ids, repeats):
        import numpy
        path = self.folder / f"{ids.shape[0]}x{ids.shape[1]}.npy"
        if not path.exists():
            numpy.save(path, ids.reshape(-1))
        self.process.stdin.write(f"{path} {ids.shape[0]} {ids.shape[1]} {repeats}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

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
            return self.model(input_ids=self.torch.from_numpy(ids)).last_hidden_state.numpy()

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
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    parser.add_argument("--model", type=pathlib.Path, default=cache / "multihead" / "all-MiniLM-L6-v2")
    parser.add_argument("--build", type=pathlib.Path, default=SOURCE / "build" / "release")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    in_environment(arguments.build.resolve())

    import numpy
    import torch
    import transformers
    model = transformers.AutoModel.from_pretrained(arguments.model).eval().float()
    with tempfile.TemporaryDirectory() as folder:
        program = arguments.build / "multihead_encoder_bench"
        runners = [Ours(program, arguments.model, arguments.threads, pathlib.Path(folder)), Torch(model, arguments.threads),
                   OpenVino(model, arguments.threads, "f32"), OpenVino(model, arguments.threads, "bf16")]
        processor = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if "model name" in line)
        print(f"{processor}, {platform.system()}, threads: {arguments.threads}, rounds: {arguments.rounds}, "
              f"torch {torch.__version__}, medians (and quartiles) of sequences a second")
        for batch, length in CASES:
            ids = numpy.random.default_rng(1).integers(1000, 30000, (batch, length))
            outputs = [runner.output(ids) for runner in runners]
            for runner, output in zip(runners[1:3], outputs[1:3]):
                worst = abs(outputs[0] - output).max()
                assert worst < AGREEMENT, f"{runner.name} differs by {worst}"
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

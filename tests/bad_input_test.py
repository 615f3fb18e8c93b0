# SPDX-License-Identifier: Apache-2.0
"""Bad input, one table of cases, through C, C++ and the command; tests/python/test_bad_input.py has the Python faces."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import cli_test

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "bad_input"))
import faces  # noqa: E402

BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
NPY_CODES = {"float32": "f", "float64": "d", "float16": "e"}


class Library(unittest.TestCase):
    def test_every_case_through_c_and_cpp(self):
        runner = BUILD / "tests" / "bad_input_runner"
        if not runner.exists():
            self.skipTest("bad_input_runner is not built: it needs utf8proc")
        with tempfile.TemporaryDirectory() as models:
            faces.write_models(pathlib.Path(models))
            ran = subprocess.run([runner, pathlib.Path(faces.__file__).parent / "table.json", models], capture_output=True,
                                 text=True, timeout=300, check=False)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        answers = {(line["face"], line["call"], line["case"]): line for line in map(json.loads, ran.stdout.splitlines())}
        said = {"C": 0, "C++": 0}
        for face in said:
            for call in faces.TABLE:
                for case, _ in faces.cases(call, face):
                    with self.subTest(face=face, call=call, case=case["name"]):
                        answer = answers[face, call, case["name"]]
                        if answer["status"] == faces.CANNOT:
                            continue
                        said[face] += 1
                        self.assertEqual(
                            faces.faults(case, answer["status"], answer["sentence"], answer["written"]), [])
        # What has no words: another device, a read-only output; and in C++ ranks, types and NULL, a part of its types.
        total = sum(len(entry["cases"]) for entry in faces.TABLE.values())
        self.assertGreaterEqual(said["C"], total - 4)
        self.assertGreaterEqual(said["C++"], total * 2 // 3)


@unittest.skipIf(cli_test.COMMAND is None, "the command was not built: CLI11 or utf8proc is not installed")
class Command(unittest.TestCase):
    def ask(self, case, *arguments):
        outcome = cli_test.run(*arguments)
        sentence = " ".join((outcome.stderr or "").split())
        if case["status"] == "ok":
            self.assertEqual(outcome.returncode, 0, sentence)
        else:
            self.assertNotEqual(outcome.returncode, 0)
        return "ok" if outcome.returncode == 0 else None, sentence

    def test_attend(self):
        tried = 0
        for case, whole in faces.cases("multi_head_attention", "command"):
            described = [whole["tensors"][name] for name in ("X", "Wq", "Wk", "Wv", "Wo")]
            # The command makes its own output, and files have none of the other ways to be wrong.
            if any(word in case["name"] for word in ("output", "NULL")):
                continue
            if any(tensor["type"] not in NPY_CODES for tensor in described):
                continue
            with self.subTest(case=case["name"]), tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                arguments = ["attend", "--heads", whole["call"]["num_heads"], "--out", folder / "out.npy"]
                for letter, tensor in zip(("x", "wq", "wk", "wv", "wo"), described):
                    count = 1
                    for extent in tensor["shape"]:
                        count *= extent
                    path = folder / f"{letter}.npy"
                    cli_test.write_npy(path, NPY_CODES[tensor["type"]], tensor["shape"], [0.0] * count)
                    arguments += [f"--{letter}", path]
                for option, value in whole.get("run", {}).items():
                    arguments += [f"--{option}", value]
                status, sentence = self.ask(case, *arguments)
                self.assertEqual(faces.faults(case, status, sentence, status is None and (folder / "out.npy").exists()), [])
                tried += 1
        self.assertGreaterEqual(tried, 11)

    def test_encode(self):
        with tempfile.TemporaryDirectory() as models:
            faces.write_models(pathlib.Path(models))
            tried = 0
            for case, whole in faces.cases("encoder", "command"):
                folder = whole["call"]["folder"]
                options = {**whole.get("run", {}), **{name: whole["call"][name] for name in ("products",) if name in whole["call"]}}
                if folder != "tiny" or options:  # the command makes its own ids
                    arguments = [word for option, value in options.items() for word in (f"--{option}", value)]
                    with self.subTest(case=case["name"]):
                        status, sentence = self.ask(case, "encode", "--model", pathlib.Path(models) / folder, *arguments, "the cat", "a dog")
                        self.assertEqual(faces.faults(case, status, sentence, False), [])
                        tried += 1
            self.assertEqual(tried, 6)

    def test_explain(self):
        tried = 0
        for case, whole in faces.cases("explain", "command"):
            arguments = ["explain"]
            for option, value in {**whole["call"], **whole.get("run", {})}.items():
                arguments += ["--" + option.replace("_", "-"), value]
            options = whole["options"]
            if options.get("causal"):
                continue  # the command has no causal without a name
            if "softcap" in options:
                arguments += ["--softcap", options["softcap"]]
            with self.subTest(case=case["name"]):
                status, sentence = self.ask(case, *arguments)
                self.assertEqual(faces.faults(case, status, sentence, False), [])
                tried += 1
        self.assertGreaterEqual(tried, 9)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""multihead train and learned: runs, their folders, going on after a kill to the same bits, studies, refusals."""

import json
import os
import pathlib
import platform
import pty
import random
import re
import shutil
import signal
import statistics
import struct
import subprocess
import tempfile
import time
import unittest

import browser
import cli_test

TASK = "four-relations"
COMMAND = cli_test.COMMAND
FILES = {"model.safetensors", "checkpoint.safetensors", "metrics.jsonl", "plot.svg", "results.json"}


def header_of(path):
    content = path.read_bytes()
    size, = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + size])


@unittest.skipIf(COMMAND is None, "the command was not built: CLI11 or utf8proc is not installed")
class Training(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="multihead_train_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_command(self, *arguments, **environment):
        return cli_test.run(*arguments, folder=self.folder, environment={**cli_test.PLAIN, "MULTIHEAD_TRAINED": "", **environment})

    def succeed(self, *arguments, **environment):
        outcome = self.run_command(*arguments, **environment)
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        return outcome.stdout

    def refused(self, sentence, *arguments, status=1, **environment):
        outcome = self.run_command(*arguments, **environment)
        self.assertEqual(outcome.returncode, status, outcome.stdout + outcome.stderr)
        self.assertRegex(outcome.stderr, sentence)

    def bytes_of(self, name):
        return {path.name: path.read_bytes() for path in (self.folder / name).iterdir()
                if path.name in FILES - {"plot.svg"}}


class Run(Training):
    def test_what_is_shown_and_written(self):
        printed = self.succeed("train", TASK, "--steps", 6, "--out", "run", "--seed", 5)
        self.assertRegex(printed, rf"^{TASK}: .+\n4 heads a layer, .*seed 5, 6 steps")
        self.assertRegex(printed, r"(?m)^To be reached: \S+ at (least|most) [\d.]+$")
        for step in (1, 6):
            self.assertRegex(printed, rf"(?m)^step {step} of 6  loss [\d.]+  accuracy [\d.]+ .* steps/s  \w+ tokens/s  \d+:\d\d left$")
        self.assertRegex(printed, r"(?m)^ +\* loss   \+ accuracy")
        self.assertRegex(printed, r"(?m)^\S+ +[\d.]+ +at least [\d.]+ +not met$")
        self.assertRegex(printed, r"(?m)^whole model +[\d.]+")
        run = self.folder / "run"
        names = {path.name for path in run.iterdir()}
        self.assertLessEqual(FILES | {"page.html"}, names)
        self.assertFalse([name for name in names if name.endswith(".tmp")])
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        self.assertEqual([results[key] for key in ("task", "heads", "seed", "steps")], [TASK, 4, 5, 6])
        self.assertEqual({threshold["met"] for threshold in results["thresholds"]} - {True, False}, set())
        self.assertEqual(len(results["ablation"]["heads"][0]["drop"]), len(results["ablation"]["skills"]))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        self.assertEqual([line["step"] for line in lines], [1, 6])
        metadata = header_of(run / "model.safetensors")["__metadata__"]
        self.assertEqual(metadata, {"task": TASK, "heads": "4", "seed": "5"})
        self.assertEqual(header_of(run / "checkpoint.safetensors")["__metadata__"],
                         {**metadata, "steps": "6", "adamw_steps": "6"})
        self.assertTrue((run / "plot.svg").read_text(encoding="utf-8").startswith("<svg"))
        self.assertIn("<html", (run / "page.html").read_text(encoding="utf-8"))

    def test_json(self):
        outcome = self.run_command("train", TASK, "--steps", 2, "--heads", 2, "--json")
        self.assertEqual(json.loads(outcome.stdout)["heads"], 2)
        self.assertIn("step 2 of 2", outcome.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_threads_change_nothing(self):
        for threads in (1, 2):
            self.succeed("train", TASK, "--steps", 5, "--out", f"{threads}", "--threads", threads)
        self.assertEqual(self.bytes_of("1"), self.bytes_of("2"))

    def test_a_line_in_place_on_a_terminal(self):
        parent, child = pty.openpty()
        with subprocess.Popen([COMMAND, "train", TASK, "--steps", "3"], stdout=child, stdin=subprocess.DEVNULL,
                              env={**os.environ, "TERM": "dumb"}) as process:
            os.close(child)
            shown = b""
            while True:
                try:
                    piece = os.read(parent, 4096)
                except OSError:
                    break
                if not piece:
                    break
                shown += piece
            self.assertEqual(process.wait(), 0)
        os.close(parent)
        self.assertRegex(shown.decode(), r"\rstep 1 of 3 [^\n]*\rstep 3 of 3 [^\n]*\n")


class Resume(Training):
    def test_killed_at_any_moment(self):
        """It goes on to the bytes of a training that nobody disturbed, in model, checkpoint, metrics and results."""
        arguments = ["train", TASK, "--steps", "60", "--threads", "1"]
        begin = time.monotonic()
        self.succeed(*arguments, "--out", "whole")
        whole = time.monotonic() - begin
        chance, kills = random.Random(4), 0
        for _ in range(12):
            with subprocess.Popen([COMMAND, *arguments, "--out", "cut", "--resume"], cwd=self.folder,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                try:
                    process.wait(timeout=chance.uniform(0, whole / 3))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
        self.assertGreater(kills, 2)
        (self.folder / "cut" / ".multihead-7.tmp").write_bytes(b"half")
        self.succeed(*arguments, "--out", "cut", "--resume")
        self.assertEqual(self.bytes_of("cut"), self.bytes_of("whole"))
        self.assertEqual({path.name for path in (self.folder / "cut").iterdir()},
                         {path.name for path in (self.folder / "whole").iterdir()})

    def test_a_finished_one_only_tells(self):
        self.succeed("train", TASK, "--steps", 3, "--out", "run")
        before = self.bytes_of("run")
        self.assertNotRegex(self.succeed("train", TASK, "--steps", 3, "--out", "run", "--resume"), "(?m)^step ")
        self.assertEqual(self.bytes_of("run"), before)

    def test_what_disagrees_is_refused(self):
        self.succeed("train", TASK, "--steps", 3, "--out", "run")
        before = self.bytes_of("run")
        self.refused(r"--out: run holds a training already; --resume", "train", TASK, "--steps", 3, "--out", "run")
        same = ["train", TASK, "--out", "run", "--resume", "--steps"]
        self.refused(r"seed 1; this training has seed 2", *same, 3, "--seed", 2)
        self.refused(r"heads 4; this training has heads 2", *same, 3, "--heads", 2)
        self.refused(r"steps 3; this training has steps 4", *same, 4)
        self.assertEqual(self.bytes_of("run"), before)
        path = self.folder / "run" / "checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        self.refused(r"checkpoint\.safetensors", *same, 3)


class Refusals(Training):
    def test_the_command_line(self):
        self.refused(rf"'chess' is no task; there are {TASK}", "train", "chess")
        self.refused(rf"TASK is missing; it must be one of {TASK}", "train", status=2)
        self.refused("--steps", "train", TASK, "--steps", 0, status=2)
        self.refused("--resume .*--out", "train", TASK, "--resume", status=2)
        self.refused("--study .*--out", "train", TASK, "--study", status=2)
        self.refused("--seeds", "train", TASK, "--seeds", 2, status=2)
        self.refused("--study", "train", TASK, "--study", "--out", "a", "--heads", 2, status=2)
        for task in ("four-relations", "grammar", "translation", "noise", "language"):
            self.refused(rf"{task}: heads is 7; it must divide the model's 64 columns", "train", task, "--heads", 7, "--out", "no")
        self.assertEqual(list(self.folder.iterdir()), [])
        (self.folder / "file").touch()
        self.refused("--out: file cannot be made", "train", TASK, "--out", "file", "--steps", 1)
        self.refused("'chess' is no task", "learned", "chess")

    def test_a_full_disk(self):
        outcome = subprocess.run(["sh", "-c", f"ulimit -f 8; exec '{COMMAND}' train {TASK} --steps 3 --out run"],
                                 cwd=self.folder, capture_output=True, text=True, check=False,
                                 preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("cannot be written", outcome.stderr)
        self.assertEqual({path.name for path in (self.folder / "run").iterdir()}, {"metrics.jsonl"})


class Study(Training):
    def test_the_grid_its_spread_and_going_on(self):
        arguments = ["train", TASK, "--study", "--steps", 2, "--out", "study"]
        first = self.succeed(*arguments, "--seeds", 1)
        self.assertIn(f"{TASK}-heads-4-seed-1: step 2 of 2", first)
        unfinished = self.folder / "study" / f"{TASK}-heads-2-seed-1"
        (unfinished / "finished.jsonl").unlink()
        self.succeed(*arguments, "--first-seed", 2, "--seeds", 2)
        again = self.succeed(*arguments, "--seeds", 3)
        self.assertTrue((unfinished / "finished.jsonl").exists())
        self.assertNotIn("step 2 of 2", again)
        study = self.folder / "study"
        told = json.loads((study / "study.json").read_text(encoding="utf-8"))
        grid = {(run["heads"], run["seed"]): run["results"] for run in told["runs"]}
        heads = sorted({key[0] for key in grid})
        self.assertEqual(sorted(grid), [(h, seed) for h in heads for seed in (1, 2, 3)])
        for row in told["spread"]:
            values = [grid[row["heads"], seed][row["result"]] for seed in (1, 2, 3)]
            self.assertAlmostEqual(row["mean"], statistics.fmean(values), places=12)
            self.assertAlmostEqual(row["sd"], statistics.stdev(values), places=12)
            self.assertEqual((row["min"], row["max"], row["seeds"]), (min(values), max(values), 3))
        csv = (study / "study.csv").read_text(encoding="utf-8").splitlines()
        self.assertEqual(csv[0], "heads,result,seeds,mean,sd,min,max")
        self.assertEqual(len(csv) - 1, len(told["spread"]))
        table = (study / "study.txt").read_text(encoding="utf-8")
        self.assertTrue(again.endswith(table))
        self.assertRegex(table, r"at least [\d.]+: \d of 3")
        self.assertIn("4 heads", (study / "curves-loss.svg").read_text(encoding="utf-8"))
        self.refused("is of 2 steps; this study trains 3", "train", TASK, "--study", "--steps", 3, "--out", "study")


class Learned(Training):
    def setUp(self):
        super().setUp()
        self.succeed("train", TASK, "--steps", 2, "--out", f"shelf/{TASK}")

    def test_which_model(self):
        by_option = self.succeed("learned", "--model", f"shelf/{TASK}")
        for arguments in ([], [TASK]):
            self.assertEqual(self.succeed("learned", *arguments, MULTIHEAD_TRAINED="shelf"), by_option)
        self.assertRegex(by_option, rf"^{TASK}: .*\n4 heads a layer, trained from seed 1, \d+ parameters\n\ninput   ")
        for head in range(4):
            self.assertRegex(by_option, rf"(?m)^encoder 0, head {head}: \w+")
        self.refused("there is no learned model: multihead train", "learned", MULTIHEAD_TRAINED="nowhere")
        (self.folder / "other").mkdir()
        self.refused("model.safetensors", "learned", "--model", "other")

    def test_where_it_was_installed(self):
        """Beside the command's own folder, wherever that is."""
        for below in ("share/multihead/trained", "trained"):
            with self.subTest(folder=below):
                root = self.folder / below.replace("/", "-")
                home = root / ("bin" if below.startswith("share") else "build/release")
                home.mkdir(parents=True)
                shutil.copy(COMMAND, home / "multihead")
                shutil.copytree(self.folder / "shelf", root / below)
                environment = {"LD_LIBRARY_PATH": str(COMMAND.parent), "MULTIHEAD_TRAINED": ""}
                outcome = cli_test.run("learned", program=home / "multihead", environment=environment)
                self.assertEqual(outcome.returncode, 0, outcome.stderr)
                self.assertTrue(outcome.stdout.startswith(TASK))

    def test_threads_and_target(self):
        arguments = ["learned", "--model", f"shelf/{TASK}"]
        shown = self.succeed(*arguments)
        self.assertEqual(self.succeed(*arguments, "--threads", 2), shown)
        self.assertEqual(self.succeed(*arguments, "--target", "baseline").partition("\n\n")[0], shown.partition("\n\n")[0])
        self.refused("no such target here|cannot run|not available", *arguments, "--target", "neon" if platform.machine() != "aarch64" else "avx2")

    def test_input(self):
        """Words that are none are shown so that they harm no terminal, and never at length."""
        arguments = ["learned", "--model", f"shelf/{TASK}", TASK]
        sequence = " ".join(f"{letter}{number}" for letter in "ABCDEFGH" for number in (3, 11))
        self.assertIn(f"input   {sequence}\n", self.succeed(*arguments, sequence))
        outcome = self.run_command(*arguments, "\x1b]0;title\x07\u202e" + "x" * 100000)
        self.assertEqual((outcome.returncode, outcome.stdout), (1, ""))
        self.assertNotRegex(outcome.stderr, "[\x1b\x07\u202e]")
        self.assertLess(len(outcome.stderr), 300)
        self.assertLess(len(self.run_command("learned", "x" * 100000).stderr), 300)
        for text in ("A0 A0", "A0 " * 16, " ", "A16"):
            self.refused("four-relations: ", *arguments, text)

    def test_page(self):
        told = self.succeed("learned", "--model", f"shelf/{TASK}", "--html", "page.html")
        self.assertEqual(told, "html  page.html\n")
        self.assertIn("<html", (self.folder / "page.html").read_text(encoding="utf-8"))
        self.assertIn("<html", self.succeed("learned", "--model", f"shelf/{TASK}", "--html", "-"))

    def test_untrusted_bytes(self):
        path = self.folder / "shelf" / TASK / "model.safetensors"
        content = path.read_bytes()
        changes = [(b'"heads":"4"', b'"heads":"7"', "heads"), (b'"heads":"4"', b'"heads":"x"', "no whole number 'heads'"),
                   (TASK.encode(), b"x" * len(TASK), "is no task"), (b'"task"', b'"tusk"', "name no task"),
                   (b'"seed":"1"', b'"seed":"x"', "no whole number 'seed'"), (b'"heads":"4"', b'"heads":"2"', "")]
        for old, new, sentence in changes:
            self.assertEqual(content.count(old), 1)
            path.write_bytes(content.replace(old, new))
            if sentence:
                self.refused(sentence, "learned", "--model", path.parent)
        header = header_of(path)
        for key in ("heads", "seed"):
            changed = json.dumps({**header, "__metadata__": {**header["__metadata__"], key: "9" * 30}}).encode()
            path.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + struct.unpack("<Q", content[:8])[0]:])
            self.refused(f"no whole number '{key}'", "learned", "--model", path.parent)
        for size in (0, 9, len(content) - 1):
            path.write_bytes(content[:size])
            self.refused("model.safetensors", "learned", "--model", path.parent)


@unittest.skipUnless(browser.PROGRAM or os.environ.get("CI") == "true", "Chromium is not installed")
class InABrowser(Training):
    def opened(self, name):
        """The page, once it shows a head, and nothing went wrong and nothing was fetched."""
        reader = browser.Browser()
        self.addCleanup(reader.close)
        url = (self.folder / name).as_uri()
        reader.open(url)
        reader.wait("maps[0].head !== null && !waiting")
        reader.settled()
        self.assertEqual([asked for asked in reader.requests.values() if not asked.startswith("data:")], [url])
        self.assertEqual((reader.troubles, reader.dialogs), ([], []))
        return reader

    def test_pages(self):
        self.succeed("train", TASK, "--steps", 1, "--out", "run")
        page = self.opened("run/page.html")
        self.assertEqual(page.run("document.title"), f"{TASK}, 4 heads, seed 1: encoder")
        self.assertIn("16 tokens", page.text("#about"))
        tokens = page.run("[...document.querySelectorAll('#queries .token')].map((token) => token.textContent)")
        shown = self.succeed("learned", "--model", "run")
        self.assertIn(f"input   {' '.join(tokens)}\n", shown)


class Help(Training):
    def test_tasks_are_listed_and_examples_are_whole(self):
        for name in ("train", "learned"):
            text = self.succeed(name, "--help")
            self.assertRegex(text.partition("Tasks:")[2], rf"(?m)^  {TASK}  \S")
            self.assertTrue(re.findall(r"^  multihead ", text, re.MULTILINE))


if __name__ == "__main__":
    unittest.main()

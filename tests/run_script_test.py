# SPDX-License-Identifier: Apache-2.0
"""./run shows a sentence's heads with the model that it fetched, with the one that is named, one that was
trained here, or the chapter's example.

The script runs in a folder of its own, beside a command and a fetch-model that only say what they were asked.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
COMMAND = '#!/bin/sh\nprintf "<%s>" "$@"\n[ ! -e here ] || printf here\n'
FETCHED = '#!/bin/sh\necho "/a cache/model"\n'
REFUSED = '#!/bin/sh\necho "The model cannot be had: no network" >&2\nexit 1\n'


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name) / "with a space"
        build = self.folder / "build" / "release"
        build.mkdir(parents=True)
        (self.folder / ".ci").mkdir()
        shutil.copy(SOURCE / "run", self.folder / "run")
        (build / ".built").touch()
        self.write("build/release/multihead", COMMAND)

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def run_script(self, fetch, *arguments, cwd=None, model=""):
        self.write(".ci/fetch-model", fetch)
        outcome = subprocess.run([self.folder / "run", *arguments], capture_output=True, text=True, check=False, cwd=cwd,
                                 env={**os.environ, "MULTIHEAD_MODEL": model})
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        return outcome.stdout, outcome.stderr

    def test_a_sentence(self):
        self.assertEqual(self.run_script(FETCHED, "It's warm.", "--links", "5"),
                         ("<heads><--model></a cache/model><It's warm.><--links><5>", ""))

    def test_no_sentence(self):
        printed, _ = self.run_script(FETCHED)
        self.assertRegex(printed, r"^<heads><--model></a cache/model><The animal didn't cross [^<>]*>$")

    def test_a_model_of_ones_own(self):
        for option in (["--model", "DIR"], ["--model=DIR"]):
            printed, _ = self.run_script(REFUSED, "A text", *option)
            self.assertEqual(printed, "<heads><A text>" + "".join(f"<{word}>" for word in option))

    def test_paths_are_the_callers(self):
        (self.folder / ".ci" / "here").touch()
        self.assertEqual(self.run_script(REFUSED, "--model", "DIR", "A", cwd=self.folder / ".ci")[0],
                         "<heads><--model><DIR><A>here")

    def test_nothing_is_fetched_for_another_model_or_help(self):
        self.assertEqual(self.run_script(REFUSED, "A", model="DIR"), ("<heads><A>", ""))
        self.assertEqual(self.run_script(REFUSED, "--help"), ("<heads><--help>", ""))

    def test_no_model_but_one_that_was_trained_here(self):
        (self.folder / "trained" / "a-task").mkdir(parents=True)
        self.assertEqual(self.run_script(REFUSED, "A text")[0], "<sample><--trace>")  # a folder is no model
        (self.folder / "trained" / "a-task" / "model.safetensors").touch()
        printed, told = self.run_script(REFUSED, "A text")
        self.assertEqual(printed, "<learned>")
        self.assertIn("The model cannot be had: no network", told)
        self.assertIn("was trained here", told)
        self.assertIn("./run --model DIR", told)

    def test_no_model(self):
        printed, told = self.run_script(REFUSED, "A text")
        self.assertEqual(printed, "<sample><--trace>")
        self.assertIn("The model cannot be had: no network", told)
        self.assertIn("./run --model DIR", told)


if __name__ == "__main__":
    unittest.main()

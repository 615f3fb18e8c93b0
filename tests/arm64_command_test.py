# SPDX-License-Identifier: Apache-2.0
"""The command for 64-bit Arm, under qemu-aarch64: the golden outputs, and what the command's own tests ask of a model."""

import os
import pathlib
import shlex
import shutil
import tempfile
import unittest

BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/arm64")).resolve()
EMULATOR = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
CACHE = BUILD / "CMakeCache.txt"
CROSS = CACHE.is_file() and "aarch64-linux-gnu-g++" in CACHE.read_text(encoding="utf-8")


def wrapped(folder):
    """A folder like a build's, whose command is the emulator with the real one."""
    script = folder / "multihead"
    script.write_text(f'#!/bin/sh\nexec {shlex.join([*EMULATOR, str(BUILD / "multihead")])} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return folder


REASON = ""
if not CROSS:
    REASON = "this build is not for arm64: cmake --preset arm64"
elif not (BUILD / "multihead").is_file():
    REASON = "the command for arm64 was not built: .ci/fetch-arm64 could not have utf8proc, or CLI11 is missing"
elif not shutil.which(EMULATOR[0]):
    REASON = "qemu-aarch64 is not installed"

if REASON:
    class Command(unittest.TestCase):
        @unittest.skip(REASON)
        def test_golden(self):
            """What stands for all below."""
else:
    WRAPPER = tempfile.TemporaryDirectory(prefix="multihead_arm64_")
    unittest.addModuleCleanup(WRAPPER.cleanup)
    os.environ["MULTIHEAD_BUILD"] = str(wrapped(pathlib.Path(WRAPPER.name)))
    import cli_models_test  # they find the command when they are read
    import cli_test

    class Command(cli_test.Attend):
        test_golden = cli_test.Sample.test_golden
        test_info = cli_test.Machine.test_info
        test_bad_input = None  # as on every machine

        def test_it_is_for_arm(self):
            self.assertEqual((BUILD / "multihead").read_bytes()[18:20], b"\xb7\x00")  # EM_AARCH64
            self.assertRegex(self.succeed("info"), r"(?m)^chosen +neon, the best available$")

        def test_check(self):
            text = self.succeed("check", "--problems", "3")
            for target in ("neon", "baseline"):
                for kind in ("float32", "float64", "bfloat16", "float16"):
                    self.assertRegex(text, rf"(?m)^{target} +{kind} +3 .* passed$")

    class Tokens(cli_models_test.Tokens):
        pass

    class Encode(cli_models_test.Encode):
        pass


if __name__ == "__main__":
    unittest.main()

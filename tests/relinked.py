# SPDX-License-Identifier: Apache-2.0
"""A further build of objects that another build compiled: configured anew, linked anew, nothing compiled."""

import os
import pathlib
import re
import shutil
import subprocess

ROOMS = ["src", "cli", "bindings"]


def run(*arguments, folder=None, **environment):
    outcome = subprocess.run([str(argument) for argument in arguments], cwd=folder, capture_output=True, text=True,
                             env={**os.environ, **environment}, check=False)
    if outcome.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))}\n{outcome.stdout}{outcome.stderr}")
    return outcome.stdout


def objects(build):
    """{path below the build: path} of what was compiled for the libraries and the command."""
    return {str(path.relative_to(build)): path for room in ROOMS for path in sorted((build / room).rglob("*.o*"))
            if path.suffix in (".o", ".obj")}


def relinked(preset, source, built, folder, *settings, **environment):
    """The folder, built from the source and the objects of the folder built; returns what was linked."""
    run("cmake", "--preset", preset, "-S", source, "-B", folder, *settings, **environment)
    for relative, path in objects(built).items():
        target = pathlib.Path(folder) / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    linked = [line for line in run("ninja", "-t", "commands", "all", folder=folder).splitlines()
              if not re.search(r" -c \S", line)]
    for line in linked:
        run("sh", "-euc", line, folder=folder)
    return linked

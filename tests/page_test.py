# SPDX-License-Identifier: Apache-2.0
"""Pages as a reader uses them, in a headless Chromium without a network: click, hover, type, read the number."""

import array
import json
import math
import os
import pathlib
import random
import re
import struct
import subprocess
import unittest

from page_case import BUILD, ERROR, SOURCE, Case, PageCase, made, small, softmax_rows, write_npy

ENCODER = BUILD / "tests" / "encoder_runner"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODEL = pathlib.Path(os.environ.get("MULTIHEAD_MODEL") or CACHE / "multihead" / "all-MiniLM-L6-v2")
# Each does harm where a page is careless: ends a script, starts one, breaks a line of it, turns text around, hides.
HOSTILE = [b"</script><script>alert(1)</script>", b"<img src=x onerror=alert(2)>", "a\u2028b\u2029c".encode(),
           "\u202egnp.exe\u202c".encode(), b"\0nul", b"\xff\xfe\xc3(", b"", b"\n", b"\t", "\u0120word".encode(),
           "\u0120more".encode(), "\u2581piece".encode(), b"##ing", b"\"'`${alert(3)}\\", b"-->", b"<!--", b"&lt;b&gt;",
           "\u0627\u0644\u0633\u0644\u0627\u0645".encode(), "e\u0301\u200b\ufeff".encode(), b"]]>", b"x" * 300,
           "\U0001f469\u200d\U0001f680".encode()]
VIRIDIS = [(68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
           (170, 220, 50), (253, 231, 37)]


class Page(PageCase):
    def test_click_hover_read(self):
        self.open(self.plain)
        self.assertIn("10 tokens", self.browser.text("#about"))
        self.browser.click("#grid .line:nth-child(3) .head:nth-child(4)")  # layer 1, head 2
        self.browser.settled()
        self.assertEqual(self.browser.text("#head-name"), "Layer 1, head 2")
        for query, key in ((0, 0), (9, 9), (3, 7), (7, 3)):
            self.point_at(query, key)
            self.assertAlmostEqual(self.read(), self.case.at(1, 2, query, key), delta=ERROR)
            products = [self.case.at(1, 2, query, j) * self.case.norms[(1 * 4 + 2) * 10 + j] for j in range(10)]
            share, weight = products[key] / sum(products), self.case.at(1, 2, query, key)
            self.assertAlmostEqual(self.read("times norm"), share, delta=ERROR + 1.6e-5 * share / math.sqrt(weight))
            self.assertIn("(%d)" % key, self.browser.text("#readout"))
        self.browser.click("#show [data-show=norm]")
        self.assertEqual(self.browser.run("[element('plain').clientWidth, element('norm').clientWidth > 100]"), [0, True])
        self.browser.click("#show [data-show=both]")
        self.assertTrue(self.browser.run("element('plain').clientWidth > 100 && element('norm').clientWidth > 100"))

    def test_pixels(self):
        """A cell has the colour of the square root of its share of the head's largest weight."""
        self.open(self.plain, "#layer=2&head=1")
        most = max(self.case.at(2, 1, i, j) for i in range(10) for j in range(10))
        for query, key in ((0, 0), (2, 5), (9, 4), (6, 9)):
            x, y = self.point_at(query, key)
            place = min(math.sqrt(self.case.at(2, 1, query, key) / most) * 8, 8)
            low = min(int(place), 7)
            wanted = [a + (b - a) * (place - low) for a, b in zip(VIRIDIS[low], VIRIDIS[low + 1])]
            found = self.pixel(round(x), round(y))
            self.assertEqual(found[3], 255)
            for got, want in zip(found, wanted):
                self.assertLessEqual(abs(got - want), 1.5, (query, key, found, wanted))

    def test_statistics_and_labels(self):
        self.open(self.plain)
        sums = [sum(-w * math.log(w) for w in self.case.weights[at:at + 10]) for at in range(0, 1200, 10)]
        entropies = [sum(sums[at:at + 10]) / 10 for at in range(0, 120, 10)]
        self.browser.run("element('statistic').value = 'entropy'")
        self.browser.hover(*self.middle("#grid .line:nth-child(2) .head:nth-child(5)"))
        self.assertIn(f"layer 0, head 3: entropy {float(f'{entropies[3]:.3g}'):g}", self.browser.text("#grid-readout"))
        self.assertIn("nats", self.browser.text("#high"))
        self.browser.run("element('statistic').value = 'key0', element('statistic').dispatchEvent(new Event('change'))")
        self.browser.settled()
        first = [sum(self.case.at(0, h, i, 0) for i in range(10)) / 10 for h in range(4)]
        self.assertIn(f"{first[1]:.3g}", self.browser.run("cells[1].getAttribute('aria-label')"))
        self.assertIn("statistic=key0", self.browser.run("location.hash"))
        self.assertRegex(self.browser.text("#labels"), r"\w+ .*[\d.]+, threshold [\d.]+ .*(\d{4}|project)")
        ids = self.browser.run("meta.statistics.map(({id}) => id)")
        for wanted in ("entropy_share", "largest", "distance", "offset-1", "offset0", "offset1", "class0", "duplicate",
                       "induction", "received", "top_offset_share"):
            self.assertIn(wanted, ids)

    def test_tokens_and_links(self):
        self.open(self.plain, "#layer=1&head=1&least=6")
        whole = self.browser.run("linksShown(headShown()).length")
        self.assertEqual(whole, sum(w >= 0.05 for w in self.case.weights[500:600]))
        self.browser.hover(*self.middle("#queries .token:nth-child(4)"))
        self.assertEqual(self.browser.text("#token-title"), "Token 3")
        row = sorted(((self.case.at(1, 1, 3, j), -j) for j in range(10)), reverse=True)
        column = sorted(((self.case.at(1, 1, i, 3), -i) for i in range(10)), reverse=True)
        shown = [float(found) for found in re.findall(r"\d\.\d{5}", self.browser.text("#strongest"))]
        for got, (want, _) in zip(shown, row[:6] + column[:6]):
            self.assertAlmostEqual(got, want, delta=ERROR)
        self.assertEqual(len(shown), 12)
        self.browser.click("#queries .token:nth-child(6)")
        self.assertIn("token=5", self.browser.run("location.hash"))
        self.browser.hover(1, 1)
        self.assertEqual(self.browser.run("linksShown(headShown()).filter((l) => l.query !== 5 && l.key !== 5).length"), 0)
        self.browser.click("#specials")
        self.assertEqual(self.browser.run("linksShown(headShown()).filter((l) => [0, 9].includes(l.query) || "
                                          "[0, 9].includes(l.key)).length"), 0)
        self.assertGreater(self.browser.run("linksShown(headShown()).length"), 8)

    def test_keyboard_alone(self):
        self.open(self.plain)
        focus = "document.activeElement.id || document.activeElement.classList[0]"
        seen = []
        for _ in range(24):
            self.browser.press("Tab")
            seen.append(self.browser.run(focus))
        order = ["theme", "statistic", "head", "label", "nearer", "farther", "whole", "plain", "specials", "least", "queries", "keys"]
        self.assertEqual([one for one in seen if one in order][:len(order)], order)
        self.browser.run("cells[0].focus()")
        self.browser.press("ArrowDown", 2)
        self.browser.press("ArrowRight")
        self.assertEqual(self.browser.text("#head-name"), "Layer 2, head 1")
        self.assertRegex(self.browser.text("#grid-readout"), r"layer 2, head 1: entropy [\d.]+ nats")
        self.assertTrue(self.browser.run("getComputedStyle(document.activeElement).outlineStyle !== 'none'"))
        while self.browser.run(focus) != "plain":
            self.browser.press("Tab")
        self.browser.press("ArrowRight", 4)
        self.browser.press("ArrowDown", 2)
        self.assertAlmostEqual(self.read(), self.case.at(2, 1, 2, 3), delta=ERROR)
        before = self.browser.run("maps[0].scale()")
        self.browser.press("+", 2)
        self.assertGreaterEqual(self.browser.run("maps[0].scale()"), before)
        self.browser.press("0")
        self.assertEqual(self.browser.run("maps[0].scale()"), before)
        self.browser.press("Enter")
        self.assertIn("token=2", self.browser.run("location.hash"))
        while self.browser.run(focus) != "keys":
            self.browser.press("Tab")
        self.browser.press("End")
        self.assertIn("token=k9", self.browser.run("location.hash"))
        self.assertEqual(self.browser.run("document.getElementById(element('keys').getAttribute('aria-activedescendant'))"
                                          ".textContent"), "[SEP]")
        self.browser.press("Escape")
        self.assertNotIn("token=", self.browser.run("location.hash"))

    def test_the_address_brings_it_back(self):
        self.open(self.plain, "#layer=2&head=3&token=k4&statistic=received&show=both&specials=true&theme=dark")
        self.assertEqual(self.browser.text("#head-name"), "Layer 2, head 3")
        self.assertEqual(self.browser.run("[state.side, state.token, state.statistic, state.show, state.specials]"),
                         ["k", 4, "received", "both", True])
        self.assertEqual(self.browser.run("document.documentElement.dataset.theme"), "dark")
        self.browser.run("location.hash = '#layer=1&head=0'")
        self.browser.settled()
        self.assertEqual(self.browser.text("#head-name"), "Layer 1, head 0")
        self.browser.run("location.hash = '#layer=77&head=-1&token=99&statistic=__proto__&least=x&show=<b>'")
        self.browser.settled()
        self.assertEqual(self.browser.text("#head-name"), "Layer 0, head 0")

    def test_light_and_dark(self):
        paper = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
        self.open(self.plain)
        self.assertGreater(self.browser.run(paper), 200)
        self.browser.click("#theme")
        self.assertLess(self.browser.run(paper), 60)
        self.open(self.plain, dark=True)
        self.assertLess(self.browser.run(paper), 60)
        ink = "getComputedStyle(document.body).color.match(/\\d+/g).map(Number)[0]"
        self.assertGreater(self.browser.run(ink), 200)

    def test_narrow(self):
        self.open(self.plain, width=320, height=640)
        self.assertEqual(self.browser.run("document.documentElement.scrollWidth"), 320)
        self.point_at(4, 6)
        self.assertAlmostEqual(self.read(), self.case.at(0, 0, 4, 6), delta=ERROR)

    def test_zoom(self):
        self.open(self.plain)
        self.browser.click_at(*[a + b for a, b in zip(self.point_at(8, 8), self.browser.box("#plain")[:2])])
        x, y = (a + b for a, b in zip(self.point_at(8, 8), self.browser.box("#plain")[:2]))
        self.browser.call("Emulation.setDeviceMetricsOverride", width=700, height=900, deviceScaleFactor=2, mobile=False)
        self.browser.settled()
        self.browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-100)
        self.browser.settled()
        self.point_at(8, 8)
        self.assertAlmostEqual(self.read(), self.case.at(0, 0, 8, 8), delta=ERROR)

    def test_hostile_tokens(self):
        numbers, count = random.Random(2), len(HOSTILE)
        title = "</title><script>alert(4)</script>\u2028\u202e & <b>"
        case = Case((1, 2, count, count), softmax_rows(numbers, 2 * count, count), HOSTILE, title=title)
        self.open(case.page(self.folder, "hostile"))
        self.assertEqual(self.browser.run("document.title"), title)
        self.assertEqual(self.browser.text("h1"), title.replace("\u2028", "[2028]").replace("\u202e", "[202E]"))
        self.assertEqual(self.browser.run("document.querySelectorAll('img, b:not(#labels b)').length"), 0)
        self.assertEqual(self.browser.run("[...document.scripts].filter((s) => !s.type).length"), 1)
        for index, token in enumerate(HOSTILE):
            self.assertEqual(self.browser.run(f"meta.q_tokens[{index}]"), token.decode("utf-8", "replace"))
            self.point_at(index, (index + 5) % count)
            self.assertAlmostEqual(self.read(), case.at(0, 0, index, (index + 5) % count), delta=ERROR)
        shown = [self.browser.run(f"readable(meta.q_tokens[{index}])") for index in range(count)]
        self.assertEqual(shown[3], "[202E]gnp.exe[202C]")
        self.assertEqual(shown[4:13], ["\u2400nul", "\ufffd\ufffd\ufffd(", "\u2205", "\u21b5", "\u21e5", "\u2423word",
                                       "\u2423more", "\u2423piece", "##ing"])
        self.assertEqual(self.browser.run("element('queries').children[0].textContent"), HOSTILE[0].decode())
        self.assertEqual(self.browser.run("document.documentElement.scrollWidth <= innerWidth"), True)

    def test_nothing_is_fetched(self):
        """Even what is put into the page: its policy refuses scripts, pictures and requests that are not its own."""
        self.open(self.plain)
        refused = self.browser.run("""new Promise((done) => {
          const refused = [];
          addEventListener("securitypolicyviolation", (event) => {
            refused.push(event.effectiveDirective);
            if (refused.length === 4) done(refused.sort());
          });
          const script = document.createElement("script"), own = document.createElement("script");
          script.src = "https://example.org/x.js";
          own.textContent = "alert(5)";
          const picture = document.createElement("img");
          picture.src = "https://example.org/x.png";
          document.body.append(script, own, picture);
          fetch("https://example.org/").catch(() => {});
        })""")
        self.assertEqual(refused, ["connect-src", "img-src", "script-src-elem", "script-src-elem"])
        self.browser.settled()
        self.assertEqual(sorted(self.browser.blocked), [f"https://example.org/{name}" for name in ("x.js", "x.png")])
        self.assertTrue(any("Content Security Policy" in trouble for trouble in self.browser.troubles))
        self.browser.troubles.clear()

    def test_two_sides(self):
        case = small(kv_tokens=[b"k%d" % i for i in range(7)])
        self.open(case.page(self.folder, "cross"), "#layer=2&head=3")
        self.assertIn("10 queries, 7 keys", self.browser.text("#about"))
        self.point_at(9, 6)
        self.assertAlmostEqual(self.read(), case.at(2, 3, 9, 6), delta=ERROR)
        self.browser.click("#keys .token:nth-child(7)")
        self.assertIn("is looked at by", self.browser.text("#strongest"))
        self.assertNotIn("looks at", self.browser.text("#strongest"))

    def test_long(self):
        self.open(made(2000, self.folder / "long.z.html"), "#layer=1&head=2")  # compressed
        self.assertIn("means of 16", self.browser.text("#about"))
        self.point_at(100, 99)
        self.assertRegex(self.browser.text("#readout"), r"queries 1600.1615 . keys 1584.1599: mean weight [\d.]+")
        self.assertGreater(self.read(), 0.05)
        self.browser.run("element('queries').focus()")
        self.browser.press("End")
        self.assertIn("token=1999", self.browser.run("location.hash"))
        self.assertEqual(self.browser.text("#token-title"), "Token 1999")
        self.assertLess(self.browser.run("document.querySelectorAll('.token').length"), 80)
        offsets = self.browser.run("headShown().looks(1999).map(({token}) => 1999 - token)")
        self.assertEqual(len(offsets), 8)
        self.assertLess(max(abs(offset - 42) for offset in offsets), 8)  # layer 1, head 2 looks 42 back

    def test_without_decompression(self):
        page = made(100, self.folder / "packed.z.html")
        self.url = page.as_uri()
        script = self.browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete window.DecompressionStream")
        self.browser.open(self.url)
        self.browser.wait("!element('trouble').hidden")
        self.browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])
        self.assertIn("DecompressionStream", self.browser.text("#trouble"))

    def test_pytorch_s_numbers(self):
        """A page of our encoder's weights shows what PyTorch gave for the sentence (tests/minilm_values.py)."""
        self.url = self.plain.as_uri()
        if not (ENCODER.exists() and (MODEL / "model.safetensors").is_file()):
            self.browser.open(self.url)
            self.skipTest(f"all-MiniLM-L6-v2 is not in {MODEL}, or encoder_runner is not built; .ci/fetch-model fetches it")
        data = (SOURCE / "tests" / "minilm" / "values.safetensors").read_bytes()
        size, = struct.unpack_from("<Q", data)
        header = json.loads(data[8:8 + size])

        def stored(name, kind):
            begin, end = header[name]["data_offsets"]
            return array.array(kind, data[8 + size + begin:8 + size + end])

        ids, wanted = stored("6.ids", "q"), stored("6.weights", "f")
        folder, count = self.folder / "minilm", len(ids)
        folder.mkdir()
        for name, values in (("ids", ids), ("starts", [0, count]), ("types", [0] * count)):
            write_npy(folder / f"{name}.npy", "<i8", (len(values),), values)
        subprocess.run([ENCODER, MODEL, folder], check=True, capture_output=True)
        words = (MODEL / "vocab.txt").read_text(encoding="utf-8").split("\n")
        (folder / "q_tokens.txt").write_text("".join(words[i].encode().hex() + "\n" for i in ids), encoding="ascii")
        self.open(made(folder, self.folder / "minilm.html"))
        for layer, head in ((0, 0), (2, 7), (5, 11)):
            self.browser.click(f"#grid .line:nth-child({layer + 2}) .head:nth-child({head + 2})")
            self.browser.settled()
            for query, key in ((0, 0), (6, 2), (13, 9)):
                self.point_at(query, key)
                torch = wanted[((layer * 12 + head) * count + query) * count + key]
                self.assertAlmostEqual(self.read(), torch, delta=ERROR + 5e-6)


if __name__ == "__main__":
    unittest.main()

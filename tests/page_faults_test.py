# SPDX-License-Identifier: Apache-2.0
"""Pages where a careless one fails: a pointer at rest, rows without numbers, broken files, few or many heads, fingers."""

import base64
import random
import re
import unittest

from page_case import ERROR, Case, PageCase, made, small, softmax_rows

NAN = float("nan")


class Faults(PageCase):
    def watch(self):
        """Counts drawings and changes of what is read aloud from here on."""
        self.browser.run("""draws = 0, writes = 0;
          if (!window.drawn) {
            window.drawn = draw;
            draw = () => { ++draws; drawn(); };
            new MutationObserver((found) => (writes += found.length)).observe(document.body,
              {subtree: true, childList: true, characterData: true});
          }""")

    def counted(self, milliseconds=300):
        return self.browser.run(f"new Promise((done) => setTimeout(() => done([draws, writes]), {milliseconds}))")

    def test_a_pointer_at_rest_draws_nothing(self):
        self.open(self.plain)
        for selector in ("#queries .token:nth-child(4)", "#plain", "#grid .line:nth-child(3) .head:nth-child(3)"):
            self.browser.hover(*self.middle(selector))
            self.browser.settled()
            self.watch()
            self.assertEqual(self.counted(), [0, 0], selector)
            x, y = self.middle(selector)
            self.browser.hover(x + 1, y)  # on the same token, cell and head
            self.assertEqual(self.counted(100), [0, 0], selector)

    def test_hover_moves_nothing(self):
        for width in (320, 900, 1000, 1100, 1400):
            self.open(self.plain, width=width)
            places = "['sentence', 'links', 'map', 'heads'].map((id) => element(id).getBoundingClientRect().top)"
            self.browser.box("#sentence")
            x, y = self.middle("#queries .token:nth-child(4)")
            before = self.browser.run(places)
            self.browser.hover(x, y)
            self.assertEqual(self.browser.text("#token-title"), "Token 3")
            self.assertEqual(self.browser.run(places), before, width)

    def test_text_of_grid_cells(self):
        """.99968 is no .00."""
        sure = [[0.99968 if j == i else 0.00032 / 3 for j in range(4)] for i in range(4)]
        rows = [*sure, *([0.25] * 4 for _ in range(4)), *([1.0 if j == i else 0.0 for j in range(4)] for i in range(4))]
        case = Case((1, 3, 4, 4), [weight for row in rows for weight in row], [b"a", b"b", b"c", b"d"])
        self.open(case.page(self.folder, "sure"), "#statistic=largest")
        self.assertEqual(self.browser.run("cells.map((cell) => cell.textContent)"), ["1.00", ".25", "1.00"])
        self.browser.click("#from-least")
        self.assertEqual(self.browser.text("#low"), "0.250")
        self.assertEqual(self.browser.run("cells[1].style.backgroundColor"), "rgb(68, 1, 84)")

    def test_rows_without_numbers(self):
        weights = [NAN] * 4 + [0.1, 0.2, 0.3, 0.4] + [0.4, 0.3, 0.2, 0.1] + [0.1, 0.7, 0.1, 0.1]
        case = Case((1, 1, 4, 4), weights, [b"a", b"b", b"c", b"d"])
        self.open(case.page(self.folder, "masked"))
        self.assertEqual(self.browser.run("headShown().lookers(1).map(({token}) => token)"), [3, 2, 1])
        self.assertEqual(self.browser.run("headShown().looks(0)"), [])
        self.assertEqual(self.browser.run("headShown().received.every((sum) => sum > 0)"), True)
        self.point_at(0, 2)
        self.assertIn("no number", self.browser.text("#readout"))
        self.browser.hover(*self.middle("#queries .token:nth-child(1)"))
        self.assertRegex(self.browser.text("#readout"), "looks at nothing")
        self.assertRegex(self.browser.text("#strongest"), "(?s)looks at.*none")
        self.browser.hover(*self.middle("#keys .token:nth-child(2)"))
        self.assertNotIn("no number", self.browser.text("#strongest") + self.browser.text("#readout"))

    def test_broken_blocks(self):
        page = self.plain.read_text(encoding="utf-8")
        for place, block in (("0.1", base64.b64encode(bytes(199)).decode()), ("0.2", "!!!"),
                             ("0.3", base64.b64encode(bytes(202)).decode())):
            page = re.sub(rf'(id="p{re.escape(place)}">)[^<]*', rf"\g<1>{block}", page)
        page = re.sub(r'(id="n1.0">)[^<]*', r"\1AAAA", page)
        path = self.folder / "broken.html"
        path.write_text(page, encoding="utf-8")
        self.open(path, "#layer=0&head=0")
        self.assertTrue(self.browser.run("element('trouble').hidden"))
        for layer, head, words in ((0, 1, "199 bytes where 200"), (0, 2, "cannot be read"), (0, 3, "202 bytes where 200"),
                                   (1, 0, "3 bytes")):
            self.browser.click(f"#grid .line:nth-child({layer + 2}) .head:nth-child({head + 2})")
            self.browser.wait("!element('trouble').hidden")
            self.browser.settled()
            self.assertIn(words, self.browser.text("#trouble"))
            self.assertIn(f"layer {layer}, head {head}", self.browser.text("#trouble"))
            self.assertEqual(self.browser.run("""(() => {
              const blank = document.createElement("canvas"), {width, height} = element("plain");
              Object.assign(blank, {width, height});
              return [headShown(), element("plain").toDataURL() === blank.toDataURL()];
            })()"""), [None, True])
            self.assertEqual(self.browser.run("unpacked.has(`p0.1`)"), False)
            self.browser.click("#grid .line:nth-child(4) .head:nth-child(3)")
            self.browser.wait("element('trouble').hidden && headShown()")

    def test_half_a_file(self):
        text = self.plain.read_text(encoding="utf-8")
        path = self.folder / "half.html"
        path.write_text(text[:text.index('id="p2.3"')], encoding="utf-8")
        self.url = path.as_uri()
        self.browser.open(self.url)
        self.assertIn("the file is incomplete", self.browser.text("#trouble"))
        self.assertEqual(self.browser.run("document.querySelector('main').hidden"), True)

    def test_what_is_drawn_first(self):
        """Two links a query, whatever the weights; the strongest of very many."""
        self.open(self.plain, "#layer=1&head=2")
        self.assertGreaterEqual(self.browser.run("linksShown(headShown()).length"), 20)
        self.assertLess(self.browser.run("linksInSight(headShown()).filter(({weight}) => weight >= kLeast[leastStep(headShown()) + 1])"
                                         ".length"), 20)
        count = 250
        flat = Case((1, 1, count, count), [1 / count] * count ** 2, [b"t%d" % i for i in range(count)])
        page = flat.page(self.folder, "flat")
        self.open(page)
        self.assertEqual(self.browser.text("#least-shown"), "0.002")
        self.assertEqual(self.browser.run("linksShown(headShown()).length"), 4000)
        self.browser.run("for (let at = 0; at < 10; ++at) headShown().map[at * 250 + 100 + at] = 0.5")
        self.assertEqual(self.browser.run("linksShown(headShown()).slice(-10).map(({query}) => query).sort().join()"),
                         "0,1,2,3,4,5,6,7,8,9")
        self.open(page, "#least=10")
        self.assertEqual(self.browser.text("#no-links"), "no link of this weight in sight")

    def test_few_queries_many_keys(self):
        keys = [b"k%d" % i for i in range(60)]
        case = Case((1, 1, 4, 60), [1.0 if j == 50 + i else 0.0 for i in range(4) for j in range(60)],
                    [b"a", b"b", b"c", b"d"], keys)
        self.open(case.page(self.folder, "few"))
        self.browser.run("element('links').scrollTop = 1e6")
        self.browser.settled()
        self.assertEqual(self.browser.run("[...element('queries').children].map((one) => one.textContent)"), list("abcd"))
        self.assertIn("k53", self.browser.run("[...element('keys').children].map((one) => one.textContent)"))
        self.assertEqual(self.browser.run("linksShown(headShown()).map(({query, key}) => key - query)"), [50] * 4)
        count = 100  # both lists are longer than their box; the shorter moves by its share
        case = Case((1, 1, 50, count), [1.0 if j == count - 1 else 0.0 for _ in range(50) for j in range(count)],
                    [b"q%d" % i for i in range(50)], [b"k%d" % i for i in range(count)])
        self.open(case.page(self.folder, "many"))
        self.browser.run("element('links').scrollTop = 1e6")
        self.browser.settled()
        self.assertEqual(self.browser.run("['queries', 'keys'].map((id) => element(id).lastChild.textContent)"), ["q49", "k99"])
        self.assertEqual(self.browser.run("linksShown(headShown()).length"), 50)  # all of the key in sight
        self.browser.run("element('links').scrollTop = 0")
        self.browser.run("element('queries').focus()")
        self.browser.press("End")
        self.assertEqual(self.browser.run("element('queries').querySelector('[aria-selected=true]').textContent"), "q49")

    def test_pooled_titles(self):
        self.open(made(600, self.folder / "pooled.html"), "#layer=0&head=0&token=300")
        self.assertRegex(self.browser.text("#strongest"), r"is looked at by · receives [\d.]+ · of each query's 8 largest")
        self.browser.run("choose({token: 599})")
        self.browser.settled()
        self.assertIn("of the row's queries", self.browser.text("#map-keys"))
        self.browser.run("headShown().keys.fill(65535)")
        self.browser.run("choose({token: 10})")
        self.browser.settled()
        self.assertEqual(self.browser.text("#strongest").count("none"), 2)

    def test_times_norms_is_said(self):
        self.open(self.plain, "#show=norm&token=2")
        for place in ("#token-title", "#sentence-title", "#heads-title", "#grid-readout"):
            self.assertIn(", times norms", self.browser.text(place))
        self.browser.click("#show [data-show=plain]")
        for place in ("#token-title", "#sentence-title", "#heads-title", "#grid-readout"):
            self.assertNotIn("times norms", self.browser.text(place))

    def test_labels_of_all_heads(self):
        self.open(self.plain)
        names = self.browser.run("meta.labels.map((labels) => labels.map(({name}) => name))")
        self.browser.hover(*self.middle("#grid .line:nth-child(3) .head:nth-child(3)"))
        self.assertTrue(self.browser.text("#grid-readout").endswith("; " + ", ".join(names[5])))
        label = names[6][0]
        self.browser.click(f"#label-index [data-label={label}]")
        self.assertIn(f"label={label}", self.browser.run("location.hash"))
        self.assertEqual(self.browser.run("cells.map((cell) => cell.classList.contains('other'))"),
                         [label not in one for one in names])
        self.browser.run(f"[...document.querySelector('[data-label={label}]').parentNode.children]"
                         ".find((one) => one.textContent === '1.2').click()")
        self.browser.settled()
        self.assertEqual(self.browser.text("#head-name"), "Layer 1, head 2")
        self.browser.run("document.querySelector('#label-index button').focus()")
        self.browser.press("ArrowRight")
        self.browser.press("Enter")
        self.assertEqual(self.browser.run("document.activeElement.textContent"),
                         self.browser.text("#head-name").replace("Layer ", "").replace(", head ", "."))
        self.browser.run("choose({layer: 0, head: 3})")
        self.browser.press("]")
        self.assertEqual(self.browser.text("#head-name"), "Layer 1, head 0")
        self.browser.press("[", 2)
        self.assertEqual(self.browser.text("#head-name"), "Layer 0, head 2")

    def test_one_link_under_the_pointer(self):
        self.open(self.plain, "#layer=1&head=2")
        self.point_at(3, 7)
        self.assertEqual(self.browser.run("linksShown(headShown()).map(({query, key}) => [query, key])"), [[3, 7]])
        self.assertEqual(self.browser.run("[...document.querySelectorAll('.token.shown')].map(({id}) => id)"),
                         ["q-token-3", "k-token-7"])
        self.browser.hover(1, 1)
        self.assertEqual(self.browser.run("document.querySelectorAll('.token.shown').length"), 0)
        self.browser.click("#queries .token:nth-child(4)")
        best = max(range(10), key=lambda j: self.case.at(1, 2, 3, j))
        self.browser.click("#strongest button")
        self.assertIn(f"token=k{best}", self.browser.run("location.hash"))
        self.assertEqual(self.browser.run("document.activeElement.id"), "strongest")

    def test_the_map_keeps_its_colours(self):
        """What is not chosen gets darker, never lighter; right button and Escape."""
        self.open(self.plain, "#layer=2&head=1")
        most, least = (kind(range(10), key=lambda j: self.case.at(2, 1, 7, j)) for kind in (max, min))
        at = [[round(part) for part in self.point_at(7, key)] for key in (most, least)]
        self.browser.hover(1, 1)
        before = [self.pixel(*one) for one in at]
        self.browser.run("choose({token: 2 === %d || 2 === %d ? 0 : 2})" % (most, least))
        self.browser.settled()
        for old, new in zip(before, [self.pixel(*one) for one in at]):
            self.assertLess(sum(new[:3]), sum(old[:3]) + 1)
        self.browser.run("element('plain').focus()")
        self.browser.press("Escape")
        self.assertNotIn("token", self.browser.run("location.hash"))
        x, y = self.middle("#plain")
        for kind in ("mousePressed", "mouseReleased"):
            self.browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="right", clickCount=1)
        self.browser.settled()
        self.assertNotIn("token", self.browser.run("location.hash"))

    def test_fingers_and_wheels(self):
        self.open(self.plain, width=500, height=600)
        self.browser.box("#plain")
        x, y = (a + b for a, b in zip(self.point_at(4, 6), self.browser.box("#plain")[:2]))
        self.browser.hover(1, 1)
        self.browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.browser.settled()
        self.assertAlmostEqual(self.read(), self.case.at(0, 0, 4, 6), delta=ERROR)
        self.browser.run("element('plain').focus(), wholeMap()")
        self.browser.settled()
        refused = "(y) => !element('plain').dispatchEvent(new WheelEvent('wheel', {deltaY: y, cancelable: true}))"
        self.assertEqual(self.browser.run(f"[1, -1, 1, 1].map({refused})"), [False, True, True, False])

    def test_many_heads(self):
        numbers = random.Random(4)
        case = Case((2, 32, 3, 3), softmax_rows(numbers, 192, 3), [b"a", b"b", b"c"])
        page = case.page(self.folder, "wide")
        self.open(page)
        self.assertTrue(self.browser.run("element('grid-box').scrollWidth <= element('grid-box').clientWidth"))
        self.assertEqual(self.browser.run("[...document.querySelectorAll('[role=columnheader]')].map((one) => one.textContent)"
                                          ".filter(Boolean).join()"), "0,4,8,12,16,20,24,28")
        for width in (1400, 320):
            self.open(page, "#head=31", width=width)
            self.assertTrue(self.browser.run("cells.every((cell) => cell.offsetWidth >= 24 && cell.offsetHeight >= 24)"))
            self.assertEqual(self.browser.run("document.documentElement.scrollWidth"), width)
            self.assertTrue(self.browser.run("cells[31].getBoundingClientRect().right <= innerWidth"))

    def test_special_tokens_are_told(self):
        case = small()
        case.special = "0100000000"
        self.open(case.page(self.folder, "special"), "#specials=true&least=0")
        self.assertEqual(self.browser.run("[...document.querySelectorAll('#queries .special')].map(({id}) => id)"), ["q-token-1"])
        self.assertEqual(self.browser.run("linksShown(headShown()).length"), 81)

    def test_forced_colours_and_paper(self):
        self.open(self.plain)
        self.browser.call("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])
        self.assertEqual(self.browser.run("getComputedStyle(cells[0]).backgroundColor === cells[0].style.backgroundColor"
                                          ".replace(/ /g, ', ').replace(/,,/g, ',')"), True)
        self.browser.call("Emulation.setEmulatedMedia", media="print")
        self.assertEqual(self.browser.run("getComputedStyle(document.querySelector('.controls')).display"), "none")
        self.browser.call("Emulation.setEmulatedMedia", media="")

    def test_ink_can_be_read(self):
        self.open(self.plain)
        least = self.browser.run("""(() => {
          const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
          const luminance = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
          return Math.min(...Array.from({length: 1001}, (_, at) => {
            const rgb = colour(at / 1000), light = luminance(rgb);
            return isLight(rgb) ? (light + 0.05) / 0.05 : 1.05 / (light + 0.05);
          }));
        })()""")
        self.assertGreater(least, 4.0)

    def test_policy(self):
        self.open(self.plain)
        policy = self.plain.read_text(encoding="utf-8").split('content="', 1)[1].split('"', 1)[0]
        for part in ("default-src 'none'", "base-uri 'none'", "form-action 'none'"):
            self.assertIn(part, policy)


if __name__ == "__main__":
    unittest.main()

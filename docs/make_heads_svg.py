#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws docs/heads.svg: the chapter's example from X to the output, with the numbers of cli/chapter.hpp.

  make_heads_svg.py [FILE]      FILE is heads.svg beside this script unless given
"""

import math
import pathlib
import re
import sys

DOCS = pathlib.Path(__file__).resolve().parent
CHAPTER = DOCS.parent / "cli" / "chapter.hpp"

WIDTH, HEIGHT = 900, 352
HEADS = ("#2f6fd6", "#d8701f")  # a colour a head
TINTS = ("#edf3fd", "#fdf2e8")
INK, GREY, LINE, PAPER = "#1f2430", "#6a7282", "#9aa3b2", "#ffffff"
# The command's colours of weights: five even steps of viridis (van der Walt and Smith 2015).
VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


# The example ----------------------------------------------------------------------------------------------------------

def matrices():
    """X, Wq, Wk, Wv and Wo by name, and the number of heads."""
    text = CHAPTER.read_text(encoding="utf-8")
    found = {name: [[float(value) for value in row.split(",")] for row in re.findall(r"\{([^{}]+)\}", body)]
             for name, body in re.findall(r"double k(\w+)\[\d\]\[\d\] = \{(.*?)\};", text, re.DOTALL)}
    return found, int(re.search(r"kHeads = (\d+)", text).group(1))


def product(a, b):
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [power / sum(powers) for power in powers]


def head(X, Wq, Wk, Wv):
    Q, K, V = product(X, Wq), product(X, Wk), product(X, Wv)
    scores = [[s / math.sqrt(len(Q[0])) for s in row] for row in product(Q, list(zip(*K)))]
    weights = [softmax(row) for row in scores]
    return {"Q": Q, "K": K, "V": V, "weights": weights, "out": product(weights, V)}


def example():
    """The matrices, the steps of each head, their outputs side by side, and the output."""
    given, count = matrices()
    width = len(given["Wq"][0]) // count
    heads = [head(given["X"], *([row[h * width:(h + 1) * width] for row in given[name]] for name in ("Wq", "Wk", "Wv")))
             for h in range(count)]
    concat = [sum((list(step["out"][i]) for step in heads), []) for i in range(len(given["X"]))]
    return given, heads, concat, product(concat, given["Wo"])


# Shapes ---------------------------------------------------------------------------------------------------------------

def number(x):
    return f"{x:.2f}".rstrip("0").rstrip(".")


def text(x, y, words, size=12, color=INK, anchor="middle", font=None, weight=None):
    more = (' class="mono"' if font == "mono" else "") + (f' font-weight="{weight}"' if weight else "")
    return (f'<text x="{number(x)}" y="{number(y)}" font-size="{number(size)}" fill="{color}" '
            f'text-anchor="{anchor}"{more}>{words}</text>')


def rectangle(x, y, width, height, fill, stroke="none", radius=0.0, opacity=1.0):
    more = f' rx="{number(radius)}"' if radius else ""
    more += f' fill-opacity="{number(opacity)}"' if opacity != 1 else ""
    more += f' stroke="{stroke}"' if stroke != "none" else ""
    return (f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
            f'fill="{fill}"{more}/>')


def arrow(points, color=LINE, tip=True, width=1.4):
    """A line through (x, y) points: straight between two, a curve that leaves and arrives level between four."""
    (x, y), rest = points[0], points[1:]
    kind = "C" if len(rest) == 3 else "L"
    path = f"M{number(x)} {number(y)} {kind}" + " ".join(f"{number(a)} {number(b)}" for a, b in rest)
    marker = f' marker-end="url(#tip-{color[1:]})"' if tip else ""
    return f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{number(width)}"{marker}/>'


def curve(x0, y0, x1, y1, **style):
    bend = (x1 - x0) * 0.55
    return arrow([(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)], **style)


def blend(color, strength):
    """From paper (0) to the colour (1)."""
    channels = (int(color[i:i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (channel - 255) * strength):02x}" for channel in channels)


def grid(x, y, values, cell, color_of):
    """A matrix of small cells: the larger the magnitude the stronger the colour."""
    largest = max(abs(value) for row in values for value in row)
    shapes = [rectangle(x + j * cell, y + i * cell, cell, cell,
                        blend(color_of(i, j), 0.12 + 0.88 * abs(value) / largest), PAPER)
              for i, row in enumerate(values) for j, value in enumerate(row)]
    return shapes + [rectangle(x, y, cell * len(values[0]), cell * len(values), "none", LINE)]


def viridis(weight):
    place = weight * (len(VIRIDIS) - 1)
    below = min(int(place), len(VIRIDIS) - 2)
    part = place - below
    return [round(a + part * (b - a)) for a, b in zip(VIRIDIS[below], VIRIDIS[below + 1])]


def heatmap(x, y, weights, cell):
    shapes = []
    for i, row in enumerate(weights):
        shapes.append(text(x - 6, y + (i + 0.5) * cell + 3.5, f"query {i}", 10, GREY, "end"))
        for j, weight in enumerate(row):
            color = viridis(weight)
            light = 299 * color[0] + 587 * color[1] + 114 * color[2] > 128000
            shapes += [rectangle(x + j * cell, y + i * cell, cell, cell, f"rgb({','.join(map(str, color))})", PAPER),
                       text(x + (j + 0.5) * cell, y + (i + 0.5) * cell + 4, f"{weight:.4f}", 11.5,
                            "#000000" if light else "#ffffff", font="mono")]
    shapes += [text(x + (j + 0.5) * cell, y - 6, f"key {j}", 10, GREY) for j in range(len(weights[0]))]
    return shapes


# The picture ----------------------------------------------------------------------------------------------------------

X_AT, W_AT, QKV_AT, MAP_AT, OUT_AT, CONCAT_AT, WO_AT, OUTPUT_AT = 20, 98, 230, 338, 470, 546, 660, 731
LANES = (22, 172)  # the top of each head's lane
LANE_LEFT, LANE_RIGHT, LANE_HEIGHT = 204, 524, 142
MIDDLE = 168
QKV_CELL, W_CELL, OUT_CELL, MAP_CELL, OUTPUT_CELL = 11, 11, 14, 48, 50
W_TOPS = (84, 151.5, 219)


def centre(top, rows, cell):
    return top + rows * cell / 2


def lane(top, h, steps):
    """One head: Q, K, V, what each query looks at, and what it brings back."""
    color = HEADS[h]
    map_top, tops = top + 34, [top + 30 + 37 * i for i in range(3)]
    shapes = [text(LANE_LEFT + 10, top + 18, f"head {h}", 12.5, color, "start", weight=600)]
    for name, y in zip("QKV", tops):
        shapes += [text(QKV_AT - 7, centre(y, 2, QKV_CELL) + 4, name, 12, INK, "end")]
        shapes += grid(QKV_AT, y, steps[name], QKV_CELL, lambda i, j: color)
    right, meet, row = QKV_AT + 3 * QKV_CELL + 3, MAP_AT - 42, map_top + MAP_CELL
    for y in tops[:2]:
        shapes.append(curve(right, centre(y, 2, QKV_CELL), meet, row, color=color, tip=False))
    shapes.append(arrow([(meet, row), (MAP_AT - 4, row)], color))
    shapes += heatmap(MAP_AT, map_top, steps["weights"], MAP_CELL)
    out_top, under = row - OUT_CELL, row + MAP_CELL + 6
    shapes.append(arrow([(MAP_AT + 2 * MAP_CELL + 4, row), (OUT_AT - 5, row)], color))
    v_at, out_middle, corner = centre(tops[2], 2, QKV_CELL), OUT_AT + 1.5 * OUT_CELL, 10
    shapes.append(
        f'<path d="M{number(right)} {number(v_at)} C{number(right + 18)} {number(v_at)} {number(right + 12)} '
        f'{number(under)} {number(right + 30)} {number(under)} L{number(out_middle - corner)} {number(under)} '
        f'Q{number(out_middle)} {number(under)} {number(out_middle)} {number(under - corner)} '
        f'L{number(out_middle)} {number(out_top + 2 * OUT_CELL + 5)}" fill="none" stroke="{color}" '
        f'stroke-width="1.4" marker-end="url(#tip-{color[1:]})"/>')
    shapes.append(text(OUT_AT + 1.5 * OUT_CELL, out_top - 7, "weights · V", 10, GREY))
    return shapes + grid(OUT_AT, out_top, steps["out"], OUT_CELL, lambda i, j: color)


def projections(given):
    """X, the three weights with a colour a head, and the way of each part to its head."""
    shapes = [text(X_AT + 24, MIDDLE - 25, "X", 14, weight=600), text(X_AT + 24, MIDDLE + 32, "2 tokens", 10, GREY)]
    for i, row in enumerate(given["X"]):
        for j, value in enumerate(row):
            x, y = X_AT + 16 * j, MIDDLE - 16 + 16 * i
            shapes += [rectangle(x, y, 16, 16, "#eef0f4", PAPER),
                       text(x + 8, y + 12, f"{value:g}", 11, font="mono")]
    shapes.append(rectangle(X_AT, MIDDLE - 16, 48, 32, "none", LINE))
    for which, (name, top) in enumerate(zip(("Wq", "Wk", "Wv"), W_TOPS)):
        middle = centre(top, 3, W_CELL)
        shapes += [curve(X_AT + 52, MIDDLE, W_AT - 5, middle),
                   text(W_AT + 3 * W_CELL, top - 6, name, 12)]
        shapes += grid(W_AT, top, given[name], W_CELL, lambda i, j: HEADS[j // 3])
        for h, lane_top in enumerate(LANES):
            to = centre(lane_top + 30 + 37 * which, 2, QKV_CELL)
            shapes.append(curve(W_AT + 6 * W_CELL + 3, middle, QKV_AT - 21, to, color=HEADS[h], width=1.1))
    return shapes


def joined(given, concat, output):
    """The heads' outputs side by side, times Wo."""
    top = MIDDLE - OUT_CELL
    shapes = [text(CONCAT_AT + 4.5 * OUT_CELL, top - 7, "side by side", 10, GREY)]
    for h, lane_top in enumerate(LANES):
        x, y = OUT_AT + 3 * OUT_CELL + 4, lane_top + 34 + MAP_CELL
        middle = CONCAT_AT + (3 * h + 1.5) * OUT_CELL
        edge = top - 5 if h == 0 else top + 2 * OUT_CELL + 5
        shapes += [arrow([(x, y), (middle, y), (middle, y), (middle, edge)], HEADS[h])]
    shapes += grid(CONCAT_AT, top, concat, OUT_CELL, lambda i, j: HEADS[j // 3])
    shapes += [text((CONCAT_AT + 6 * OUT_CELL + WO_AT) / 2, MIDDLE + 5, "×", 17),
               text(WO_AT + 1.5 * OUT_CELL, MIDDLE - 3 * OUT_CELL - 7, "Wo", 12)]
    shapes += grid(WO_AT, MIDDLE - 3 * OUT_CELL, given["Wo"], OUT_CELL, lambda i, j: HEADS[i // 3])
    shapes += [text((WO_AT + 3 * OUT_CELL + OUTPUT_AT) / 2, MIDDLE + 5, "=", 17),
               text(OUTPUT_AT + 1.5 * OUTPUT_CELL, MIDDLE - 31, "output", 14, weight=600)]
    for i, row in enumerate(output):
        for j, value in enumerate(row):
            x, y = OUTPUT_AT + OUTPUT_CELL * j, MIDDLE - 22 + 22 * i
            shapes += [rectangle(x, y, OUTPUT_CELL, 22, "#eef0f4", PAPER),
                       text(x + OUTPUT_CELL - 4, y + 15, f"{value:.4f}", 10.5, anchor="end", font="mono")]
    return shapes + [rectangle(OUTPUT_AT, MIDDLE - 22, 3 * OUTPUT_CELL, 44, "none", LINE)]


def tip(color):
    return (f'<marker id="tip-{color[1:]}" viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="7" markerHeight="7" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.8 L7 4 L0 7.2 z" fill="{color}"/></marker>')


def picture():
    given, heads, concat, output = example()
    words = ("Multi-head attention on two tokens: X is projected by Wq, Wk and Wv, the columns are split between two "
             "heads, each head weighs the values by what its queries look at, the heads' outputs are put side by side "
             "and multiplied by Wo.")
    shapes = [rectangle(0.5, 0.5, WIDTH - 1, HEIGHT - 1, PAPER, "#d5dae2", radius=12)]
    for h, top in enumerate(LANES):
        shapes.append(rectangle(LANE_LEFT, top, LANE_RIGHT - LANE_LEFT, LANE_HEIGHT, TINTS[h], radius=9))
    shapes += projections(given)
    for h, top in enumerate(LANES):
        shapes += lane(top, h, heads[h])
    shapes += joined(given, concat, output)
    shapes += [text((LANE_LEFT + LANE_RIGHT) / 2, HEIGHT - 15, "head = softmax(Q Kᵀ / √3) V", 12, GREY),
               text((CONCAT_AT + OUTPUT_AT + 3 * OUTPUT_CELL) / 2, HEIGHT - 15, "output = [ head 0 | head 1 ] Wo", 12,
                    GREY),
               text((X_AT + W_AT + 6 * W_CELL) / 2, HEIGHT - 15, "X Wq, X Wk, X Wv", 12, GREY)]
    body = "\n".join(shapes)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">\n<title id="title">{words}</title>\n'
            f"<style>text {{ font-family: {SANS}; }} .mono {{ font-family: {MONO}; }}</style>\n"
            f"<defs>{''.join(map(tip, (LINE, *HEADS)))}</defs>\n{body}\n</svg>\n")


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "heads.svg"
    target.write_text(picture(), encoding="utf-8")

# SPDX-License-Identifier: Apache-2.0
"""What compare.py found, as a page of tables, as JSON, and as two plots; from JSON anew: report.py FILE.json ..."""

import datetime
import html
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import environment  # noqa: E402
import limits  # noqa: E402

GOAL, BEYOND = 1.2, "beyond the ceiling"
OURS, OTHERS = "multihead", ["PyTorch", "ONNX-Runtime", "OpenVINO", "NumPy"]
COLORS = {"multihead": "#1b6ca8", "PyTorch": "#e07b39", "ONNX-Runtime": "#7a9e48", "OpenVINO": "#8c5fa8", "NumPy": "#8a8a8a"}
OWN_CEILINGS = "Shares and limits are of ceilings measured beside the row, once a turn, since the clock moves. "
UNITS = {"GFLOPS": "GFLOP/s", "Gscores": "billion scores/s", "GBps": "GB/s"}  # of ceilings
PACKAGES = {"PyTorch": "torch", "ONNX Runtime": "onnxruntime", "OpenVINO": "openvino", "NumPy": "numpy"}


# The machine ------------------------------------------------------------------------------------------------------------

def output_of(*command):
    outcome = subprocess.run(command, cwd=environment.SOURCE, capture_output=True, text=True, check=False)
    return outcome.stdout.strip()


def machine(target):
    """The processor, the system, and the versions of what ran."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    number = lambda key: next((line.split(":")[1].strip() for line in lines if re.match(rf"{key}\s*:", line)), "")  # noqa: E731
    return {"processor": environment.processor(), "family": number("cpu family"), "model": number("model"),
            "processors": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}", "target": target,
            "compiler": output_of(os.environ.get("CXX", "c++"), "--version").splitlines()[0],
            "commit": output_of("git", "rev-parse", "--short", "HEAD"), "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(package) for name, package in PACKAGES.items()},
            "date": datetime.date.today().isoformat()}


def name_of(found):
    """Of the files: amd-epyc-family-23-model-1-avx2."""
    words = [found["processor"]] + ([f"family {found['family']} model {found['model']}"] if found["family"] else [])
    return re.sub(r"[^a-z0-9]+", "-", " ".join([*words, found["target"]]).lower()).strip("-")


# Shares -----------------------------------------------------------------------------------------------------------------

def over_turns(row, name, bounds):
    """The contestant's rate over a bound, the median of the turns; bounds: one a turn, or one of the whole run."""
    contestant = row["contestants"][name]
    if len(bounds) == 1:
        return contestant["rate"] / bounds[0]
    scale = 1e-9 if row["unit"] in ("GFLOP/s", "GB/s") else 1.0
    rates = [row["work"] * scale / seconds for seconds in contestant["seconds"]]
    return statistics.median(rate / bound for rate, bound in zip(rates, bounds))


def share(row, name, found):
    """Of what the core can do, or None where nothing bounds the row but the way to it: attention and products of many rows
    as a share of multiply-adds alone, few rows and decode of what binds more."""
    few = "weight_bytes" in row or row["kind"] == "decode"
    if row["unit"] not in ("GFLOP/s", "GB/s") or few and row["threads"] > 1:  # the loop that reads is of one thread
        return None
    if few:
        return over_turns(row, name, limits.limits(row, found))
    of = row["type"], found["machine"]["target"], row["kind"] == "backward"
    return over_turns(row, name, [limits.multiplies(rates, *of)[0] for rates in limits.turns(row, found)])


# The page ---------------------------------------------------------------------------------------------------------------

def number(rate):
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def cell(row, name, found):
    if name in row["none"]:
        return "none"
    if name not in row["contestants"]:
        return ""
    part = share(row, name, found)
    text = number(row["contestants"][name]["rate"]) + (f" ({part:.0%})" if part is not None else "")
    return text + " differs" if name in row["differing"] else text


def room(row, found):
    """The row's limit over its fastest peer's rate; None where nothing bounds it or no peer does it."""
    bounds = limits.limits(row, found) if "ratio" in row else []
    return 1 / over_turns(row, row["fastest_peer"], bounds) if bounds else None


def goal(row, found):
    """Whether the row is at the goal, and if not, whether anything could be."""
    if row["ratio"] >= GOAL:
        return "yes"
    possible = room(row, found)
    return BEYOND if possible and possible < GOAL else "no"


def verdict(row, found):
    if OURS not in row["contestants"]:
        return "none | | no"
    if "ratio" not in row:
        return "no peer | | yes"
    possible = room(row, found)
    return (f"{row['ratio']:.2f} ({row['fastest_peer'].replace('-', ' ')}) | {f'{possible:.2f}' if possible else ''} | "
            f"{goal(row, found)}")


def table(rows, found):
    heads = [OURS, *(name for name in OTHERS if any(name in row["contestants"] for row in rows))]
    lines = [f"| type | problem: {rows[0]['unit']} | " + " | ".join(name.replace("-", " ") for name in heads) +
             f" | ratio | at most | {GOAL} |",
             "|---|---|" + "---|" * (len(heads) + 3)]
    lines += [f"| {row['type']} | {row['title']} | " + " | ".join(cell(row, name, found) for name in heads) +
              f" | {verdict(row, found)} |" for row in rows]
    return "\n".join(lines)


def ceilings_table(found):
    lines = ["| ceiling, one thread | before | after |", "|---|---|---|"]
    for name, row in found["ceilings"].items():
        key, unit = next((key, unit) for key, unit in UNITS.items() if key in row)
        size = f", {row['bytes'] // 1024:,.0f} KB" if "bytes" in row else ""
        later = found["ceilings_after"].get(name, {}).get(key)
        lines.append(f"| {name.replace('_', ' ')}{size} | {number(row[key])} {unit} | {number(later) if later else ''} |")
    return "\n".join(lines)


def summary(found, against):
    """How many rows are at the goal, and of the others how many could be."""
    words = [goal(row, found) for row in against]
    passed = sum((room(row, found) or GOAL) < 1 for row in against)
    return (f"{words.count('yes')} of {len(words)} rows that a peer can do are at {GOAL} times the fastest of them or more. In "
            f"{words.count(BEYOND)} others that would be beyond the ceiling: more than this core could do at most" +
            (f" (in {passed}, as much as the peer does)" if passed else "") +
            f". The other {words.count('no')} are ours to do.")


def page(found, name):
    about = found["machine"]
    versions = ", ".join(f"{peer} {version}" for peer, version in about["versions"].items())
    parts = [f"# {about['processor']}" + (f", family {about['family']}, model {about['model']}" if about["family"] else ""),
             f"Written by `{found['command']}` on {about['date']}: {about['processors']} processors, {about['system']}, target "
             f"`{about['target']}`, {about['compiler']}, commit {about['commit']}; {versions}, Python {about['python']}.",
             "A rate is the median of up to " + str(found["rounds"]) + " turns, in brackets its share of the ceiling; ratio: "
             "of the times, the fastest peer's over ours, the median of the turns; at most: what the core could do at most "
             "(bench/compare/limits.py), over the fastest peer's rate; none: the peer has no such thing here. " +
             (OWN_CEILINGS if any("ceilings" in row for row in found["rows"]) else "") +
             "Times of one thread are of the processor, of two on the clock. "
             "What is fair: the head of bench/compare/compare.py.",
             ceilings_table(found)]
    for threads in sorted({row["threads"] for row in found["rows"]}):
        parts.append(f"## {'One thread' if threads == 1 else f'{threads} threads'}")
        mine = [row for row in found["rows"] if row["threads"] == threads]
        for kinds in (("forward",), ("decode",), ("backward",), ("product",), ("layer",), ("encoder",), ("sample",)):
            rows = [row for row in mine if row["kind"] in kinds]
            if rows:
                parts.append(table(rows, found))
    against = [row for row in found["rows"] if "ratio" in row]
    parts.append(summary(found, against))
    slower = [f"- {label_of(row)}: {row['ratio']:.2f} of {row['fastest_peer'].replace('-', ' ')}"
              for row in against if row["ratio"] < 1]
    parts.append("A peer is faster in:\n\n" + "\n".join(slower) if slower else "In none a peer is faster.")
    parts.append(f"![Rates of peers over ours]({name}-peers.svg)\n\n![Shares of the ceiling]({name}-ceiling.svg)")
    return "\n\n".join(parts) + "\n"


# Plots ------------------------------------------------------------------------------------------------------------------

def bars(title, rows, marks):
    """An SVG of horizontal bars: rows of (label, {name: length}), marks of (length, label)."""
    left, wide, bar = 430, 420, 9
    names = [name for name in COLORS if any(name in values for _, values in rows)]
    longest = max([value for _, values in rows for value in values.values()] + [mark for mark, _ in marks]) * 1.02
    scale, y, parts = wide / longest, 58, []
    for label, values in rows:
        parts.append(f'<text x="{left - 8}" y="{y + bar * len(values) / 2 + 3:.1f}" text-anchor="end">{html.escape(label)}</text>')
        for name, value in values.items():
            parts.append(f'<rect x="{left}" y="{y}" width="{value * scale:.1f}" height="{bar - 1}" fill="{COLORS[name]}">'
                         f'<title>{name}: {value:.2f}</title></rect>')
            y += bar
        y += 7
    for mark, label in marks:
        x = left + mark * scale
        parts.append(f'<line x1="{x:.1f}" y1="50" x2="{x:.1f}" y2="{y}" stroke="#444" stroke-dasharray="3 3"/>'
                     f'<text x="{x:.1f}" y="46" text-anchor="middle">{label}</text>')
    for index, name in enumerate(names):
        parts.append(f'<rect x="{10 + index * 130}" y="24" width="10" height="10" fill="{COLORS[name]}"/>'
                     f'<text x="{24 + index * 130}" y="33">{name.replace("-", " ")}</text>')
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + wide + 40}" height="{y + 8}" font-family="sans-serif" '
            f'font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n<text x="10" y="16" font-size="13">{title}</text>\n'
            f"{body}\n</svg>\n")


def label_of(row):
    threads = f"{row['threads']} threads, " if row["threads"] > 1 else ""
    return f"{threads}{row['kind']} {row['type']}, {row['title']}"


def plots(found):
    about = found["machine"]
    where = f"{about['processor']}, target {about['target']}"
    beside = [(label_of(row), {name: min(row["contestants"][name]["rate"] / row["contestants"][OURS]["rate"], 1.6)
                               for name in OTHERS if name in row["contestants"]})
              for row in found["rows"] if "ratio" in row]
    shares = []
    for row in found["rows"]:
        values = {name: share(row, name, found) for name in (OURS, *OTHERS) if name in row["contestants"]}
        if values and None not in values.values():
            shares.append((label_of(row), values))
    return {"peers": bars(f"Rates of peers over multihead's, cut at 1.6: {where}", beside,
                          [(1, "1"), (1 / GOAL, f"1 / {GOAL}")]) if beside else None,
            "ceiling": bars(f"Shares of the ceiling: {where}", shares, [(1, "the ceiling")]) if shares else None}


def write(found, folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(page(found, name), encoding="utf-8")
    for kind, picture in plots(found).items():
        if picture:
            (folder / f"{name}-{kind}.svg").write_text(picture, encoding="utf-8")
    print(folder / f"{name}.md")


if __name__ == "__main__":
    for file in map(pathlib.Path, sys.argv[1:]):
        write(json.loads(file.read_text(encoding="utf-8")), file.parent, file.stem)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/math_table.inc: arguments and correctly rounded values of the elementary functions, by mpmath.

An entry is {x, f, rest}: f is the double nearest to f(x), and f(x) = f + rest / 100 ulp(f), so that errors of a double
can be told to a hundredth. x is a float wherever a float's test can use it. The arguments are drawn over the domain and
near the places where a formula changes, plus those nearest to multiples of pi/2, where the reduction is hardest.

usage: python3 -m venv venv && venv/bin/pip install mpmath && venv/bin/python make_math_table.py
"""
import pathlib
import random
import struct

import mpmath
from mpmath import ldexp, mp, mpf

mp.prec = 400
TRIG_END = 3294198

# The worst that trying every float, and some ten million doubles, found for the targets with fma and for baseline.
HARD = {
    "exp": ["0x1.da72c4p5", "-0x1.769da2p2", "0x1.073a52be9a3b8p9", "-0x1.9cc1ec079f30bp8"],
    "log": ["0x1.698c4ep-1", "0x1.69cf3ep0", "0x1.691ee73b033b5p0"],
    "tanh": ["0x1.20c24cp-1", "0x1.22022cp-1", "0x1.213c9995fc814p-1", "0x1.20d4700d53affp-1", "0x1.212fe35df18eap-1"],
    "erf": ["0x1.10d9ep0", "0x1.10d9c4p0", "0x1.fc47456fb03a6p-1", "0x1.ed6b5f8bbb755p-1"],
    "sin": ["0x1.8c3766p21", "0x1.f11e5bcac7acdp17"],
    "cos": ["0x1.50255ap21", "0x1.a88c9f690ce2ap20"],
}


def to_float(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def float_of(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def double_of(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def rounded(exact):
    """The nearest double, subnormal ones included, and what is left in hundredths of its last place."""
    exponent = int(mpmath.floor(mpmath.log(abs(exact), 2))) if exact else -1074
    unit = max(exponent - 52, -1074)
    count = mpmath.nint(ldexp(exact, -unit))
    f = float(ldexp(count, unit))
    assert mpf(f) == ldexp(count, unit)
    return f, int(mpmath.nint(100 * (ldexp(exact, -unit) - count)))


def spread(low, high):
    """Log-uniform between two positive numbers."""
    return lambda: low * (high / low) ** random.random()


def draw(count, *sources):
    """count numbers of each source as floats, and again as doubles."""
    numbers = []
    for source in sources:
        numbers += [to_float(source()) for _ in range(count)] + [source() for _ in range(count)]
    return numbers


def uniform(low, high):
    return lambda: random.uniform(low, high)


def signed(source):
    return lambda: source() * random.choice((1, -1))


def around(*places):
    """Each place and its neighbours, in both types."""
    numbers = []
    for place in places:
        bits = struct.unpack("<I", struct.pack("<f", place))[0]
        numbers += [float_of(bits + i) for i in (-1, 0, 1) if bits]  # no float is near 2^-1022
        bits = struct.unpack("<Q", struct.pack("<d", place))[0]
        numbers += [double_of(bits + i) for i in (-1, 0, 1)]
    return numbers


def near_quarter_turns(count):
    """The floats and doubles in range that are nearest to multiples of pi/2, measured in their own last place."""
    scale = 300
    half_pi = int(mpmath.floor(ldexp(mpmath.pi / 2, scale)))
    numbers = []
    for bits in (24, 53):
        found = []
        for n in range(1, int(TRIG_END / (mpmath.pi / 2)) + 1):
            place = n * half_pi
            shift = place.bit_length() - bits
            x = (place + (1 << (shift - 1))) >> shift
            found.append((abs((x << shift) - place), float(ldexp(mpf(x), shift - scale))))
        numbers += [x for _, x in sorted(found)[:count]]
    return numbers


def arguments():
    exp_small, exp_float, exp_double = signed(spread(2**-60, 1)), uniform(-87.3, 88.7), uniform(-708.3, 709.7)
    yield "exp", draw(60, exp_small, uniform(-2, 2), exp_float) + [exp_double() for _ in range(200)] + around(
        88.37626, 88.0, 709.0, -87.33, -708.39, 709.43, 0.34657359, -0.34657359, 1.0, -1.0) + [
            float_of(0x42b17217), float_of(0xc2aeac4f), double_of(0x40862e42fefa39ef), double_of(0xc086232bdd7abcd2)]
    yield "log", draw(50, uniform(0.5, 2), uniform(0.98, 1.02), spread(2.0**-126, 2.0**127), uniform(0, 1000)) + [
        float_of(random.getrandbits(23) >> random.randrange(23) | 1) for _ in range(40)] + [
            double_of(random.getrandbits(52) >> random.randrange(52) | 1) for _ in range(40)] + [
                double_of(random.randrange(1 << 52, 0x7ff << 52)) for _ in range(100)] + around(
                    2.0**0.5, 0.5**0.5, 1.0, 2.0, 4.0, 0.5, 2.0**-126, 2.0**-1022) + [
                        double_of(1), float_of(1), float_of(0x7f7fffff), double_of(0x7fefffffffffffff)]
    tiny = [float_of(1), float_of(0x7fffff), 2.0**-126, double_of(1), double_of(0xfffffffffffff), 2.0**-1022]
    yield "tanh", draw(60, signed(uniform(0, 1.2)), signed(uniform(0.5, 0.7)), signed(uniform(0, 20)),
                       signed(spread(2.0**-60, 1))) + around(0.5625, 9.01, 10.0, 19.06, 20.0) + tiny
    yield "erf", draw(60, signed(uniform(0, 1.2)), signed(uniform(0.9, 1.3)), signed(uniform(0, 6)),
                      signed(spread(2.0**-60, 1))) + around(0.921875, 1.0, 3.919, 4.0, 5.92, 6.0) + tiny
    near = near_quarter_turns(24)
    for name in ("sin", "cos"):
        yield name, draw(50, signed(uniform(0, 1)), uniform(-10, 10), uniform(-3217, 3217),
                         signed(uniform(0, TRIG_END)), signed(spread(2.0**-60, 1))) + near + around(
                             0.78539816, 1608.4954, 2048.0) + [3294198.0, -3294198.0] + tiny


def main():
    random.seed(20240607)
    lines = ["// SPDX-License-Identifier: Apache-2.0",
             "// {x, f(x) rounded to double, hundredths of a unit in the last place that are missing}, by make_math_table.py.",
             "// clang-format off"]
    for name, numbers in arguments():
        function = getattr(mpmath, name)
        lines.append(f"const MathPoint k{name.capitalize()}Points[] = {{")
        for x in sorted({*numbers, *map(float.fromhex, HARD[name])}):
            f, rest = rounded(function(mpf(x)))
            lines.append(f"{{{x.hex()}, {f.hex()}, {rest}}},")
        lines.append("};")
    lines.append("// clang-format on")
    path = pathlib.Path(__file__).resolve().parent / "math_table.inc"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Computes the constants of src/kernels/math.inl.hpp: minimax polynomials (Remez's exchange) and constants cut in parts.

Every polynomial P approximates a smooth core g(u) so that weight(u) * (P(u) - g(u)) is the error of the whole function
relative to its result. The printed error is that of the rounded coefficients; what evaluating them adds is measured by
tests/math_test.cpp. Coefficients stand from the constant term up.

usage: make_math_coefficients.py [exp | log | tanh | erf | trig ...]      all unless named; needs mpmath; about a minute
"""
import sys

from mpmath import atanh, cos, erf, erfc, exp, expm1, ldexp, log, lu_solve, matrix, mp, mpf, pi, sin, sqrt, tanh

mp.dps = 60
ZERO = mpf(10) ** -12  # where a core would divide by zero at 0


def to_float(x, bits):
    """The value nearest to x among those with that many bits in their mantissa."""
    exponent = int(mp.floor(log(abs(x), 2))) - (bits - 1)
    return ldexp(mp.nint(ldexp(x, -exponent)), exponent)


def hex_float(x, bits):
    text = float(x).hex()
    sign = "-" if text.startswith("-") else ""
    mantissa, exponent = text.lstrip("-")[2:].split("p")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{sign}0x{mantissa}p{int(exponent)}{'f' if bits == 24 else ''}"


def evaluate(coefficients, u):
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * u + c
    return total


class Fit:
    """A core g on a grid that is dense towards the ends, with its weight; the ends may touch a zero of the weight."""

    def __init__(self, core, weight, low, high, points=600):
        low, high = mpf(low), mpf(high)
        self.u = [(low + high) / 2 - (high - low) / 2 * cos(pi * (i + mpf("0.37")) / points) for i in range(points)]
        self.g = [core(u) for u in self.u]
        self.w = [weight(u) for u in self.u]

    def errors(self, coefficients):
        return [w * (evaluate(coefficients, u) - g) for u, g, w in zip(self.u, self.g, self.w)]

    def worst(self, coefficients):
        return max(abs(e) for e in self.errors(coefficients))

    def remez(self, terms):
        """The minimax coefficients of degree < terms, and the error."""
        points = len(self.u)
        reference = [int(points * (i + 0.5) / (terms + 1)) for i in range(terms + 1)]
        solution = None
        for _ in range(60):
            a, b = matrix(terms + 1, terms + 1), matrix(terms + 1, 1)
            for row, i in enumerate(reference):
                for column in range(terms):
                    a[row, column] = self.w[i] * self.u[i] ** column
                a[row, terms] = mpf(-1) ** row
                b[row] = self.w[i] * self.g[i]
            x = lu_solve(a, b)
            solution = [x[i] for i in range(terms)]
            errors = self.errors(solution)
            chosen = self.alternation(errors, terms + 1)
            worst = max(abs(e) for e in errors)
            if len(chosen) < terms + 1 or worst <= abs(x[terms]) * mpf("1.002"):
                return solution, worst
            reference = chosen
        return solution, worst

    @staticmethod
    def alternation(errors, count):
        """The places of count extrema of alternating sign."""
        runs = []
        for i, e in enumerate(errors):
            if runs and (errors[runs[-1]] < 0) == (e < 0):
                if abs(e) > abs(errors[runs[-1]]):
                    runs[-1] = i
            else:
                runs.append(i)
        while len(runs) > count:
            if len(runs) - count == 1 or abs(errors[runs[0]]) < abs(errors[runs[-1]]):
                runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
            else:
                runs.pop()
        return runs


def polynomial(name, core, weight, low, high, terms, bits):
    fit = Fit(core, weight, low, high)
    exact, ideal = fit.remez(terms)
    rounded = [to_float(c, bits) for c in exact]
    error = fit.worst(rounded)
    if bits == 24:
        rounded, error = climb(fit, rounded, error, bits)
    power = lambda e: f"2^{float(log(e, 2)):.1f}"
    interval = f"[{float(low):.6g}, {float(high):.6g}]"
    print(f"{name}, {bits} bits: {terms} terms on {interval}, error {power(error)} (unrounded {power(ideal)})")
    print("   " + ", ".join(hex_float(c, bits) for c in rounded), flush=True)


def climb(fit, coefficients, error, bits):
    """Moves single coefficients by one unit in the last place while that makes the worst error smaller."""
    better = True
    while better:
        better = False
        for i, c in enumerate(coefficients):
            unit = ldexp(mpf(1), int(mp.floor(log(abs(c), 2))) - (bits - 1))
            for moved in (c - unit, c + unit):
                trial = coefficients[:i] + [moved] + coefficients[i + 1:]
                worst = fit.worst(trial)
                if worst < error:
                    coefficients, error, better = trial, worst, True
                    break
    return coefficients, error


# exp(r) = 1 + (r + r^2 P(r))
def exp_core(bits, terms):
    half = log(2) / 2 * (1 + mpf(2) ** -12)
    polynomial("exp", lambda r: (expm1(r) - r) / r**2, lambda r: r**2 / exp(r), -half, half, terms, bits)


# |x| < split: tanh(x) = x + x^3 P(x^2)
def tanh_small(bits, terms, split):
    core = lambda z: (tanh(sqrt(z)) / sqrt(z) - 1) / z
    polynomial("tanh, small x", core, lambda z: z * sqrt(z) / tanh(sqrt(z)), ZERO, split**2, terms, bits)


# With s = f / (2 + f), z = s^2: log(1 + f) = 2 atanh(s) = 2s + s z P(z) = f - (f^2/2 - s (f^2/2 + z P(z))).
def log_core(bits, terms):
    core = lambda z: (2 * atanh(sqrt(z)) / sqrt(z) - 2) / z
    end = (sqrt(2) - 1) / (sqrt(2) + 1)
    polynomial("log", core, lambda z: z / 2, ZERO, end**2, terms, bits)


# |x| < split: erf(x) = x + x P(x^2)
def erf_small(bits, terms, split):
    core = lambda z: erf(sqrt(z)) / sqrt(z) - 1
    polynomial("erf, small x", core, lambda z: sqrt(z) / erf(sqrt(z)), ZERO, split**2, terms, bits)


# t >= split: erf(t) = 1 - exp(P(t - center)); the weight erfc/erf forgives more the further out.
def erf_large(bits, terms, split, end, center):
    core = lambda u: log(erfc(u + center))
    weight = lambda u: erfc(u + center) / erf(u + center)
    polynomial(f"erf, large x around {center}", core, weight, split - center, end - center, terms, bits)


# sin(r) = r + r^3 P(r^2), cos(r) = 1 - r^2/2 + r^4 P(r^2)
TRIG_END = (pi / 4 * (1 + mpf(2) ** -10)) ** 2


def sin_core(bits, terms):
    core = lambda z: (sin(sqrt(z)) / sqrt(z) - 1) / z
    polynomial("sin", core, lambda z: z * sqrt(z) / sin(sqrt(z)), ZERO, TRIG_END, terms, bits)


def cos_core(bits, terms):
    core = lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2
    polynomial("cos", core, lambda z: z**2 / cos(sqrt(z)), ZERO, TRIG_END, terms, bits)


# value as a sum of parts: each is a multiple of its own power of two, the last has all the bits of its type.
def parts(name, value, units, bits):
    rest, out = mpf(value), []
    for unit in units:
        out.append(ldexp(mp.nint(ldexp(rest, -unit)), unit))
        rest -= out[-1]
    out.append(to_float(rest, bits))
    print(f"{name}, {bits} bits: multiples of {', '.join(f'2^{unit}' for unit in units)} and the rest")
    print("   " + ", ".join(hex_float(c, bits) for c in out), flush=True)


def constant(name, value, bits):
    print(f"{name}, {bits} bits\n   {hex_float(to_float(value, bits), bits)}", flush=True)


# The argument nearest to log(result) on the side towards 0.
def bound(name, result, bits):
    exact = log(result)
    x = to_float(exact, bits)
    if abs(x) > abs(exact):
        x -= mp.sign(x) * ldexp(mpf(1), int(mp.floor(log(abs(x), 2))) - (bits - 1))
    print(f"{name}, {bits} bits\n   {hex_float(x, bits)}", flush=True)


def for_exp(bits):
    emax = 127 if bits == 24 else 1023
    bound("exp, lowest", ldexp(mpf(1), 1 - emax), bits)
    bound("exp, highest", ldexp(2 - ldexp(mpf(1), -bits), emax), bits)
    constant("log2(e)", 1 / log(2), bits)
    # n has 8 bits in float and 11 in double: n times the first part is exact.
    parts("ln 2", log(2), [-16 if bits == 24 else -42], bits)
    exp_core(bits, 5 if bits == 24 else 10)


def for_tanh(bits):
    tanh_small(bits, 5 if bits == 24 else 11, mpf("0.5625"))


def for_log(bits):
    log_core(bits, 3 if bits == 24 else 7)


def for_erf(bits):
    split = mpf("0.921875") if bits == 24 else mpf(1)
    erf_small(bits, 7 if bits == 24 else 13, split)
    erf_large(bits, 7 if bits == 24 else 18, split, 4 if bits == 24 else 6, 0 if bits == 24 else 1)


def for_trig(bits):
    constant("2/pi", 2 / pi, bits)
    parts("pi/2", pi / 2, [-11, -24, -37, -50] if bits == 24 else [-31, -63, -95], bits)
    sin_core(bits, 3 if bits == 24 else 6)
    cos_core(bits, 3 if bits == 24 else 6)


def main():
    blocks = {"exp": for_exp, "log": for_log, "tanh": for_tanh, "erf": for_erf, "trig": for_trig}
    for name in sys.argv[1:] or blocks:
        for bits in (24, 53):
            blocks[name](bits)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Random corpora through bleu_runner and through sacrebleu: bleu_cases.py RUNNER."""

import random
import subprocess
import sys

import sacrebleu

CORPORA = 300


def corpus(draw):
    """Sentences and their references: some the same, some near, some far, some empty or short."""
    pairs = []
    for _ in range(draw.randrange(1, 30)):
        reference = [str(draw.randrange(1, 12)) for _ in range(draw.randrange(1, 20))]
        hypothesis = [word if draw.random() < 0.8 else str(draw.randrange(1, 12)) for word in reference]
        if draw.random() < 0.3:
            hypothesis = hypothesis[:draw.randrange(len(hypothesis) + 1)]
        pairs.append((hypothesis, reference))
    return pairs


def main(runner):
    draw = random.Random(1)
    corpora = [corpus(draw) for _ in range(CORPORA)]
    text = "".join("".join(f"{' '.join(h)}\n{' '.join(r)}\n" for h, r in pairs) + "=\n" for pairs in corpora)
    printed = subprocess.run([runner], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) == CORPORA
    counted = 0
    for pairs, line in zip(corpora, printed):
        ours = [float(number) for number in line.split()]
        score = sacrebleu.corpus_bleu([" ".join(h) for h, _ in pairs], [[" ".join(r) for _, r in pairs]], tokenize="none",
                                      smooth_method="none", force=True)
        theirs = [score.score / 100, score.bp, *(precision / 100 for precision in score.precisions)]
        assert all(abs(a - b) < 1e-12 for a, b in zip(ours, theirs)), f"{ours} DIFFERS from {theirs}"
        counted += 0 < theirs[0] < 1
    print(f"compared {CORPORA} corpora, {counted} between 0 and 1")


main(sys.argv[1])

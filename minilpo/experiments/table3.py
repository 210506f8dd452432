"""Table 3: the majority of 8 answers, each written at token-level temperatures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed, Policy
from minilpo.decoding.rollout import score
from minilpo.evaluation.measure import Measured
from minilpo.experiments.base import (
    Finding,
    Numbers,
    Row,
    difference,
    direction,
    draw_bars,
    percent,
    percent_at,
    values_of,
)
from minilpo.experiments.lab import Lab
from minilpo.seeds import torch_generator
from minilpo.show import plots
from minilpo.tasks.math import final_answer
from minilpo.tasks.math_paths import MathPaths, majority

PAPER = (
    "mathematics, majority vote of 8: best fixed temperature 87.46%, adaptive 87.70%, "
    "and 87.95% with 1.2 among the choices"
)
TASK = "math_paths"
CHOICES = {"adaptive": (0.0, 0.4, 0.8, 1.0), "adaptive with 1.2": (0.0, 0.4, 0.8, 1.0, 1.2)}
FIXED = CHOICES["adaptive with 1.2"]
PAPERS_VOTES = {"adaptive": "87.70", "adaptive with 1.2": "87.95"}
PAPERS_SINGLE = {"adaptive": "80.47", "adaptive with 1.2": "80.51"}
PAPERS_GAINS = {"adaptive": "+0.24", "adaptive with 1.2": "+0.49"}
VOTERS = 8


def measure(lab: Lab) -> Numbers:
    """Votes with both heads and at fixed temperatures, the best of which training prompts tell."""
    numbers: Numbers = {}
    for split in ("train", "test"):
        measured = lab.fixed(split, (TASK,), FIXED)
        votes = [vote(lab, measured, Fixed(Temperatures([t])), f"vote {split} {t}") for t in FIXED]
        rights, singles = zip(*votes, strict=True)
        numbers[split] = {"vote": list(rights), "single": list(singles)}
    numbers["best"] = int(np.argmax(numbers["train"]["vote"]))
    test = lab.fixed("test", (TASK,), FIXED)
    for name, choices in CHOICES.items():
        head = lab.head("token", (TASK,), choices, prompts=lab.quarter_of_the_prompts())
        right, single = vote(lab, test, head.greedy, f"vote test {name}")
        numbers[name] = {"vote": right, "single": single}
    return numbers


def vote(lab: Lab, measured: Measured, policy: Policy, purpose: str) -> tuple[float, float]:
    """The shares of right majorities of `VOTERS` answers to a prompt, and of right single ones."""
    task = MathPaths()
    generator = torch_generator(lab.seed, purpose)
    rollout = generate(lab.lm, measured.prompts, policy, generator, n_samples=VOTERS)
    answers = [final_answer(response) for response in rollout.responses]
    right = []
    for p, prompt in enumerate(measured.prompts):
        voted = majority(answers[p * VOTERS : (p + 1) * VOTERS])
        right.append(task.reward(prompt, f"#### {voted}"))
    return float(np.mean(right)), float(score(rollout, measured.task_of).double().mean())


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Votes beside the paper's, then differences to the best fixed temperature."""
    votes, singles, differences = [], [], []
    best = [seed["test"]["vote"][seed["best"]] for seed in seeds]
    for name in CHOICES:
        right, gain = values_of(seeds, name, "vote"), f"vote, {name} - best fixed (points)"
        votes.append(percent(f"vote, {name}", right, PAPERS_VOTES[name]))
        single = values_of(seeds, name, "single")
        singles.append(percent(f"single answer, {name}", single, PAPERS_SINGLE[name]))
        differences.append(difference(gain, right, best, PAPERS_GAINS[name], scale=100))
    rows: list[Row] = [
        *percent_at("vote at", FIXED, values_of(seeds, "test", "vote")),
        percent("vote at the best fixed", best, "87.46"),
        *votes,
        percent("single answer, greedy", values_of(seeds, "test", "single", 0), "81.59"),
        *singles,
        *differences,
    ]
    agrees = all(row.sign() > 0 for row in differences)
    sentence = direction(
        agrees,
        f"the vote gains {differences[0].mean:+.1f} points by sampling only where it helps.",
        "The direction doesn't agree beyond the interval over seeds for both sets of temperatures.",
    )
    return Finding(rows, agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Votes and single answers."""
    fig, [[ax]] = plots.figure(1, 1, width=6)
    places = np.arange(len(FIXED) + len(CHOICES))
    for kind, shift, colour in (("single", -0.2, plots.GREY), ("vote", 0.2, plots.BLUE)):
        heads = np.transpose([values_of(seeds, name, kind) for name in CHOICES])
        values = np.hstack([values_of(seeds, "test", kind), heads])
        label = f"majority of {VOTERS}" if kind == "vote" else "single answer"
        mean = draw_bars(ax, places + shift, values, color=colour, label=label)
    plots.name_ticks(ax, FIXED, "head", "head\nwith 1.2")
    ax.set(xlabel="fixed temperature, or a token-level head", ylabel="right answers (%)")
    ax.set_ylim(0, 105)
    ax.set_title(
        f"Voting: {100 * mean[:-2].max():.0f}% at most with one temperature, "
        f"{100 * mean[-2]:.0f}% with the head"
    )
    plots.legend(ax, loc="upper left")
    return fig

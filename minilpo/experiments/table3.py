"""Table 3: the majority of 8 answers, each written at token-level temperatures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo import plots
from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures
from minilpo.evaluation import Measured
from minilpo.experiments.base import Finding, Numbers, Row, mean_and_half
from minilpo.experiments.lab import Lab
from minilpo.rollout import generate
from minilpo.seeds import torch_generator
from minilpo.tasks.math_paths import majority

PAPER = "mathematics, majority vote of 8: best fixed temperature 87.46%, adaptive 87.70%, and 87.95% with 1.2 among the choices"
TASK = "math_paths"
CHOICES = {"adaptive": (0.0, 0.4, 0.8, 1.0), "adaptive with 1.2": (0.0, 0.4, 0.8, 1.0, 1.2)}
FIXED = CHOICES["adaptive with 1.2"]
PAPERS_VOTES = {"adaptive": "87.70", "adaptive with 1.2": "87.95"}
PAPERS_SINGLE = {"adaptive": "80.47", "adaptive with 1.2": "80.51"}
VOTERS = 8


def measure(lab: Lab) -> Numbers:
    """Votes at every fixed temperature and with both heads; the best fixed one is chosen on training prompts."""
    numbers: Numbers = {}
    for split in ("train", "test"):
        measured = lab.fixed(split, (TASK,), FIXED)
        votes = [vote(lab, measured, FixedTemperatures([t]), f"vote {split} {t}") for t in FIXED]
        numbers[split] = {"vote": [right for right, _ in votes], "single": [single for _, single in votes]}
    numbers["best"] = int(np.argmax(numbers["train"]["vote"]))
    test = lab.fixed("test", (TASK,), FIXED)
    for name, choices in CHOICES.items():
        head = lab.head("token", (TASK,), choices, prompts=lab.quarter_of_the_prompts()).head
        right, single = vote(lab, test, head, f"vote test {name}")
        numbers[name] = {"vote": right, "single": single}
    return numbers


def vote(lab: Lab, measured: Measured, head: AdaptiveDecoder | FixedTemperatures, purpose: str) -> tuple[float, float]:
    """The share of prompts whose majority of `VOTERS` answers is right, and the share of single answers that are."""
    [task] = lab.tasks([TASK])
    generator = torch_generator(lab.seed, purpose)
    rollout = generate(lab.model, lab.tokenizer, measured.prompts, head, generator, n_samples=VOTERS)
    right = []
    for p, prompt in enumerate(measured.prompts):
        answers = [task.answer(response) for response in rollout.responses[p * VOTERS : (p + 1) * VOTERS]]
        right.append(task.reward(prompt, f"#### {majority(answers)}"))
    single = [task.reward(measured.prompts[row // VOTERS], response) for row, response in enumerate(rollout.responses)]
    return float(np.mean(right)), float(np.mean(single))


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Votes beside the paper's, then differences to the best fixed temperature."""
    best = [seed["test"]["vote"][seed["best"]] for seed in seeds]
    rows = [Row(f"vote at t={t:g} (%)", [100 * seed["test"]["vote"][k] for seed in seeds]) for k, t in enumerate(FIXED)]
    rows += [Row("vote at the best fixed (%)", [100 * value for value in best], "87.46")]
    rows += [Row(f"vote, {name} (%)", [100 * seed[name]["vote"] for seed in seeds], PAPERS_VOTES[name]) for name in CHOICES]
    rows += [Row("single answer, greedy (%)", [100 * seed["test"]["single"][0] for seed in seeds], "81.59")]
    rows += [
        Row(f"single answer, {name} (%)", [100 * seed[name]["single"] for seed in seeds], PAPERS_SINGLE[name])
        for name in CHOICES
    ]
    papers = {"adaptive": "+0.24", "adaptive with 1.2": "+0.49"}
    differences = [
        Row(
            f"vote, {name} - best fixed (points)",
            [100 * (seed[name]["vote"] - value) for seed, value in zip(seeds, best, strict=True)],
            papers[name],
        )
        for name in CHOICES
    ]
    agrees = all(row.sign() > 0 for row in differences)
    sentence = (
        f"The direction agrees: the vote gains {differences[0].mean:+.1f} points by sampling only where it helps."
        if agrees
        else "The direction doesn't agree beyond the interval over seeds for both sets of temperatures."
    )
    return Finding(rows + differences, agrees, sentence)


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Votes and single answers."""
    fig, axes = plots.figure(1, 1, width=6)
    ax = axes[0, 0]
    labels = [*[f"{t:g}" for t in FIXED], "head", "head\nwith 1.2"]
    places = np.arange(len(labels))
    for kind, shift, colour in (("single", -0.2, plots.GREY), ("vote", 0.2, plots.BLUE)):
        mean, half = mean_and_half([[*seed["test"][kind], *[seed[name][kind] for name in CHOICES]] for seed in seeds])
        label = f"majority of {VOTERS}" if kind == "vote" else "single answer"
        ax.bar(places + shift, 100 * mean, 0.4, yerr=100 * half, color=colour, label=label, capsize=3)
    ax.set_xticks(places, labels)
    ax.set(xlabel="fixed temperature, or a token-level head", ylabel="right answers (%)", ylim=(0, 105))
    ax.set_title(f"Voting: {100 * mean[:-2].max():.0f}% at most with one temperature, {100 * mean[-2]:.0f}% with the head")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return fig

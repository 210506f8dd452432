"""Table 3: the majority of 8 answers, each written at token-level temperatures."""

from typing import Any

import numpy as np

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import respond
from minilpo.decoding.policies import Fixed, Policy
from minilpo.evaluation.measure import Measured
from minilpo.experiments.base import Finding, Numbers, Row, compared, direction, percent_at
from minilpo.experiments.figures import draw_bars
from minilpo.experiments.lab import Lab
from minilpo.seeds import torch_generator
from minilpo.show import plots
from minilpo.tasks.math import final_answer
from minilpo.tasks.math_paths import majority

PAPER = (
    "mathematics, majority vote of 8: best fixed temperature 87.46%, adaptive 87.70%, "
    "and 87.95% with 1.2 among the choices; of single answers greedy's are best"
)
CHOICES = {"adaptive": (0.0, 0.4, 0.8, 1.0), "adaptive with 1.2": (0.0, 0.4, 0.8, 1.0, 1.2)}
FIXED = CHOICES["adaptive with 1.2"]
# In `math_paths` the greedy answer is wrong. In `math` it is the best single one, as in the paper.
HEADS = {"math_paths": ("adaptive", "adaptive with 1.2"), "math": ("adaptive",)}
PAPERS: dict[str, dict[Any, str]] = {  # right answers by kind, and by temperature or head
    "vote": {"best": "87.46", "adaptive": "87.70", "adaptive with 1.2": "87.95"},
    "single": {0.0: "81.59", "adaptive": "80.47", "adaptive with 1.2": "80.51"},
}
PAPERS_GAINS = {"adaptive": "+0.24", "adaptive with 1.2": "+0.49"}
VOTERS = 8
KINDS = {"vote": "vote", "single": "single answer"}
UNDECIDED = "not clearly different"


def measure(lab: Lab) -> Numbers:
    """Counts right votes by task, with the heads and at fixed temperatures."""
    found = {}
    for task, names in HEADS.items():
        numbers: Numbers = {}
        for split in ("train", "test"):  # training prompts tell the best temperature
            measured = lab.fixed(split, (task,), FIXED)
            policies = {t: Fixed(Temperatures([t])) for t in FIXED}
            votes = [vote(lab, measured, policies[t], f"vote {split} {t}") for t in FIXED]
            numbers[split] = {kind: [v[kind] for v in votes] for kind in KINDS}
        numbers["best"] = int(np.argmax(numbers["train"]["vote"]))
        for name in names:
            head = lab.head("token", (task,), Temperatures(CHOICES[name]))
            numbers[name] = vote(lab, measured, head.greedy, f"vote test {name}")
        found[task] = numbers
    return found


def vote(lab: Lab, measured: Measured, policy: Policy, purpose: str) -> dict[str, float]:
    """Computes the shares of right majorities of `VOTERS` answers, and of right single ones."""
    generator = torch_generator(lab.seed, purpose)
    rollout, rewards = respond(lab.lm, measured.prompts, policy, generator, n_samples=VOTERS)
    answers, right = [final_answer(response) for response in rollout.responses], []
    for p, prompt in enumerate(measured.prompts):
        voted = majority(answers[p * VOTERS : (p + 1) * VOTERS])
        right.append(prompt.task.reward(prompt.text, f"#### {voted}"))
    return {"vote": float(np.mean(right)), "single": float(rewards.double().mean())}


def conclude(found: Numbers) -> Finding:
    """Says whether the votes gain, and whether by better single answers or by voting."""
    rows: list[Row] = []
    sentences, agrees = [], True
    for task, names in HEADS.items():
        numbers, test = found[task], found[task]["test"]
        every = np.arange(len(numbers["best"]))
        # Each seed's shares at the temperature whose vote was best on training prompts.
        best = {kind: test[kind][every, numbers["best"]] for kind in KINDS}
        for kind, words in KINDS.items():
            papers = PAPERS[kind]
            rows += percent_at(f"{task}: {words} at", FIXED, test[kind], papers)
            if kind == "vote":
                label = f"{task}: vote at the best fixed (%)"
                rows.append(Row(label, 100 * best["vote"], papers["best"]))
            for name in names:
                label, right = f"{task}: {words}, {name} (%)", 100 * numbers[name][kind]
                rows.append(Row(label, right, papers[name]))

        others = 1 + numbers["train"]["single"][:, 1:].argmax(1)  # by training prompts, too
        lead = 100 * (test["single"][:, 0] - test["single"][every, others])
        greedy = Row(f"{task}: single answer, greedy - best other (points)", lead)
        is_best = greedy.told("is", "is not", "is not clearly")
        sentences.append(f"On {task} greedy {is_best} the best single answer at one temperature.")
        rows.append(greedy)
        for name in names:
            vote, single = numbers[name]["vote"], numbers[name]["single"]
            # A better single answer, and more that is added by voting: their sum is the gain.
            by_single = single - best["single"]
            by_voting = (vote - single) - (best["vote"] - best["single"])
            label = f"{task}: vote, {name} - best fixed"
            gain = Row(f"{label} (points)", 100 * (vote - best["vote"]), PAPERS_GAINS[name])
            better = Row(f"{label}: by the single answer", 100 * by_single)
            more = Row(f"{label}: by voting", 100 * by_voting)
            own = Row(f"{task}: {name}, vote - single answer (points)", 100 * (vote - single))
            rows += [gain, better, more, own]
            agrees &= gain.sign() > 0
            sentences.append(
                f"{name.capitalize()}: the vote is {compared({'the best fixed one': gain})} "
                f"({gain.text(1)} points), {better.text(1)} by its single answers "
                f"({better.told('better', 'worse', UNDECIDED)}) and {more.text(1)} by what "
                f"voting adds ({more.told('more', 'less', UNDECIDED)}); "
                f"it is {compared({'the own single answer': own})} ({own.text(1)})."
            )
    return Finding(rows, agrees, direction(agrees, " ".join(sentences)))


def draw(found: Numbers) -> plots.Figure:
    """Draws votes and single answers, by task."""
    fig, axes = plots.figure(1, len(HEADS), width=6)
    for ax, (task, names) in zip(axes.flat, HEADS.items(), strict=True):
        of_task, values = found[task], {}
        for kind, label in (("single", "single answer"), ("vote", f"majority of {VOTERS}")):
            heads = [of_task[name][kind] for name in names]
            values[label] = np.column_stack([of_task["test"][kind], *heads])
        ticks = [*Temperatures(FIXED).names, "head", "head\nwith 1.2"]
        ticks = ticks[: len(FIXED) + len(names)]
        _, votes = draw_bars(ax, ticks, values, (plots.GREY, plots.BLUE))
        ax.set(xlabel="fixed temperature, or a token-level head", ylabel="right answers (%)")
        best, head = 100 * votes[: len(FIXED)].max(), 100 * votes[len(FIXED)]
        title = (
            f"{task}, voting: {best:.0f}% at most with one\ntemperature, {head:.0f}% with the head"
        )
        ax.set(ylim=(0, 125), title=title)
    plots.legend(axes[0, 0], loc="upper left")
    return fig

"""Table 3: the majority of 8 answers, each written at token-level temperatures."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import respond
from minilpo.decoding.policies import Fixed, Policy
from minilpo.evaluation.measure import Measured
from minilpo.experiments.base import Finding, Numbers, Row, compared, direction, percent_at
from minilpo.experiments.figures import draw_side_by_side
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
    return {task: _measure_task(lab, task) for task in HEADS}


def _measure_task(lab: Lab, task: str) -> Numbers:
    numbers: Numbers = {}
    for split in ("train", "test"):  # training prompts tell the best temperature
        measured = lab.fixed(split, (task,), FIXED)
        votes = [vote(lab, measured, Fixed(Temperatures([t])), f"vote {split} {t}") for t in FIXED]
        numbers[split] = {kind: [v[kind] for v in votes] for kind in KINDS}
    numbers["best"] = int(np.argmax(numbers["train"]["vote"]))
    for name in HEADS[task]:
        head = lab.head("token", (task,), Temperatures(CHOICES[name]))
        numbers[name] = vote(lab, measured, head.greedy, f"vote test {name}")
    return numbers


def vote(lab: Lab, measured: Measured, policy: Policy, purpose: str) -> dict[str, float]:
    """Computes the shares of right majorities of `VOTERS` answers, and of right single ones."""
    generator = torch_generator(lab.seed, purpose)
    rollout, rewards = respond(lab.lm, measured.prompts, policy, generator, n_samples=VOTERS)
    answers = [final_answer(response) for response in rollout.responses]
    right = []
    for p, prompt in enumerate(measured.prompts):
        voted = majority(answers[p * VOTERS : (p + 1) * VOTERS])
        right.append(prompt.task.reward(prompt.text, f"#### {voted}"))
    return {"vote": float(np.mean(right)), "single": float(rewards.double().mean())}


def conclude(found: Numbers) -> Finding:
    """Says whether the votes gain, and whether by better single answers or by voting."""
    rows: list[Row] = []
    sentences, agrees = [], True
    for task, names in HEADS.items():
        greedy = _greedy_minus_next(task, found[task])
        rows += [*_rates(task, found[task]), greedy]
        is_best = greedy.told("is", "is not", "is not clearly")
        sentences.append(f"On {task} greedy {is_best} the best single answer at one temperature.")
        for name in names:
            gain, single, voting, own = gains = _gains(task, name, found[task])
            rows += gains
            agrees &= gain.sign() > 0
            sentences.append(
                f"{name.capitalize()}: the vote is {compared({'the best fixed one': gain})} "
                f"({gain.text(1)} points), {single.text(1)} by its single answers "
                f"({single.told('better', 'worse', UNDECIDED)}) and {voting.text(1)} by what "
                f"voting adds ({voting.told('more', 'less', UNDECIDED)}); "
                f"it is {compared({'the own single answer': own})} ({own.text(1)})."
            )
    return Finding(rows, agrees, direction(agrees, " ".join(sentences)))


def _rates(task: str, found: Numbers) -> list[Row]:
    """Makes rows of the shares of right votes and of right single answers."""
    rows = []
    for kind, words in KINDS.items():
        papers = PAPERS[kind]
        rows += percent_at(f"{task}: {words} at", FIXED, found["test"][kind], papers)
        if kind == "vote":
            best = 100 * _at_best(found, "vote")
            rows.append(Row(f"{task}: vote at the best fixed (%)", best, papers["best"]))
        for name in HEADS[task]:
            right = 100 * found[name][kind]
            rows.append(Row(f"{task}: {words}, {name} (%)", right, papers[name]))
    return rows


def _greedy_minus_next(task: str, found: Numbers) -> Row:
    """Subtracts the best other single answer, by training prompts, from the greedy one."""
    singles, on_training = found["test"]["single"], found["train"]["single"]
    best = 1 + on_training[:, 1:].argmax(1)
    gain = singles[:, 0] - singles[np.arange(len(best)), best]
    return Row(f"{task}: single answer, greedy - best other (points)", 100 * gain)


def _gains(task: str, name: str, found: Numbers) -> tuple[Row, Row, Row, Row]:
    """Computes the gain of the head's vote over the best fixed one, its two parts, and its own.

    The first is the sum of the second, a better single answer, and the third: more is added by
    voting. The fourth is the head's vote minus its own single answer. All are in points.
    """
    vote, single = found[name]["vote"], found[name]["single"]
    best_vote, best_single = _at_best(found, "vote"), _at_best(found, "single")
    by_voting = (vote - single) - (best_vote - best_single)
    label = f"{task}: vote, {name} - best fixed"
    return (
        Row(f"{label} (points)", 100 * (vote - best_vote), PAPERS_GAINS[name]),
        Row(f"{label}: by the single answer", 100 * (single - best_single)),
        Row(f"{label}: by voting", 100 * by_voting),
        Row(f"{task}: {name}, vote - single answer (points)", 100 * (vote - single)),
    )


def _at_best(found: Numbers, kind: str) -> np.ndarray:
    """Takes each seed's share at the temperature whose vote was best on training prompts."""
    return found["test"][kind][np.arange(len(found["best"])), found["best"]]


def draw(found: Numbers) -> Figure:
    """Draws votes and single answers, by task."""
    fig, axes = plots.figure(1, len(HEADS), width=6)
    for ax, (task, names) in zip(axes.flat, HEADS.items(), strict=True):
        of_task, values = found[task], {}
        for kind, label in (("single", "single answer"), ("vote", f"majority of {VOTERS}")):
            heads = [of_task[name][kind] for name in names]
            values[label] = np.column_stack([of_task["test"][kind], *heads])
        _, votes = draw_side_by_side(ax, values, (plots.GREY, plots.BLUE))
        plots.name_ticks(ax, Temperatures(FIXED).names, *["head", "head\nwith 1.2"][: len(names)])
        ax.set(xlabel="fixed temperature, or a token-level head", ylabel="right answers (%)")
        ax.set_ylim(0, 125)
        best, head = 100 * votes[: len(FIXED)].max(), 100 * votes[len(FIXED)]
        ax.set_title(
            f"{task}, voting: {best:.0f}% at most with one\ntemperature, {head:.0f}% with the head"
        )
    plots.legend(axes[0, 0], loc="upper left")
    return fig

"""Table 3: the majority of 8 answers, each written at token-level temperatures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import respond
from minilpo.decoding.policies import Fixed, Policy
from minilpo.evaluation.measure import Measured
from minilpo.experiments.base import (
    Finding,
    Numbers,
    Row,
    compared,
    direction,
    draw_side_by_side,
    percent_at,
    values_of,
)
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
# In `math_paths` the greedy answer is wrong; in `math` it is the best single answer, as in the
# paper.
HEADS = {"math_paths": ("adaptive", "adaptive with 1.2"), "math": ("adaptive",)}
PAPERS_VOTES = {"adaptive": "87.70", "adaptive with 1.2": "87.95"}
PAPERS_SINGLE = {"adaptive": "80.47", "adaptive with 1.2": "80.51"}
PAPERS_GAINS = {"adaptive": "+0.24", "adaptive with 1.2": "+0.49"}
VOTERS = 8
UNDECIDED = "not clearly different"


def measure(lab: Lab) -> Numbers:
    """By task: votes with the heads and at fixed temperatures; training prompts tell the best."""
    return {task: _measure_task(lab, task) for task in HEADS}


def _measure_task(lab: Lab, task: str) -> Numbers:
    numbers: Numbers = {}
    for split in ("train", "test"):
        measured = lab.fixed(split, (task,), FIXED)
        votes = [vote(lab, measured, Fixed(Temperatures([t])), f"vote {split} {t}") for t in FIXED]
        rights, singles = zip(*votes, strict=True)
        numbers[split] = {"vote": list(rights), "single": list(singles)}
    numbers["best"] = int(np.argmax(numbers["train"]["vote"]))
    test = lab.fixed("test", (task,), FIXED)
    for name in HEADS[task]:
        head = lab.head("token", (task,), CHOICES[name])
        right, single = vote(lab, test, head.greedy, f"vote test {name}")
        numbers[name] = {"vote": right, "single": single}
    return numbers


def vote(lab: Lab, measured: Measured, policy: Policy, purpose: str) -> tuple[float, float]:
    """The shares of right majorities of `VOTERS` answers to a prompt, and of right single ones."""
    generator = torch_generator(lab.seed, purpose)
    rollout, rewards = respond(lab.lm, measured.prompts, policy, generator, n_samples=VOTERS)
    answers = [final_answer(response) for response in rollout.responses]
    right = []
    for p, prompt in enumerate(measured.prompts):
        voted = majority(answers[p * VOTERS : (p + 1) * VOTERS])
        right.append(prompt.task.reward(prompt.text, f"#### {voted}"))
    return float(np.mean(right)), float(rewards.double().mean())


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Votes and single answers beside the paper's, and where the gain of a vote comes from."""
    rows: list[Row] = []
    sentences, agrees = [], True
    for task, names in HEADS.items():
        of_task = [seed[task] for seed in seeds]
        rates, greedy = _rates(task, of_task), _greedy_minus_next(task, of_task)
        rows += [*rates, greedy]
        is_best = greedy.told("is", "is not", "is not clearly")
        sentences.append(f"On {task} greedy {is_best} the best single answer at one temperature.")
        for name in names:
            gain, single, voting, own = gains = _gains(task, name, of_task)
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


def _rates(task: str, seeds: Sequence[Numbers]) -> list[Row]:
    """The shares of right votes and of right single answers."""
    votes, singles = (values_of(seeds, "test", kind) for kind in ("vote", "single"))
    rows = percent_at(f"{task}: vote at", FIXED, votes)
    best = 100 * _at_best(seeds, "vote")
    rows.append(Row(f"{task}: vote at the best fixed (%)", best, "87.46"))
    for name in HEADS[task]:
        right = 100 * values_of(seeds, name, "vote")
        rows.append(Row(f"{task}: vote, {name} (%)", right, PAPERS_VOTES[name]))
    rows += percent_at(f"{task}: single answer at", FIXED, singles, {0.0: "81.59"})
    for name in HEADS[task]:
        right = 100 * values_of(seeds, name, "single")
        rows.append(Row(f"{task}: single answer, {name} (%)", right, PAPERS_SINGLE[name]))
    return rows


def _greedy_minus_next(task: str, seeds: Sequence[Numbers]) -> Row:
    """The greedy single answer minus the best other one by training prompts, in points."""
    singles, on_training = (values_of(seeds, split, "single") for split in ("test", "train"))
    best = 1 + on_training[:, 1:].argmax(1)
    gain = singles[:, 0] - singles[np.arange(len(seeds)), best]
    return Row(f"{task}: single answer, greedy - best other (points)", 100 * gain)


def _gains(task: str, name: str, seeds: Sequence[Numbers]) -> tuple[Row, Row, Row, Row]:
    """In points, what the head's vote gains over the best fixed one, its two parts, and its own.

    The first is the sum of the second, a better single answer, and the third, how much more voting
    adds to it. The fourth is what voting adds to the head's single answer.
    """
    vote, single = values_of(seeds, name, "vote"), values_of(seeds, name, "single")
    best_vote, best_single = _at_best(seeds, "vote"), _at_best(seeds, "single")
    by_voting = (vote - single) - (best_vote - best_single)
    label = f"{task}: vote, {name} - best fixed"
    return (
        Row(f"{label} (points)", 100 * (vote - best_vote), PAPERS_GAINS[name]),
        Row(f"{label}: by the single answer", 100 * (single - best_single)),
        Row(f"{label}: by voting", 100 * by_voting),
        Row(f"{task}: {name}, vote - single answer (points)", 100 * (vote - single)),
    )


def _at_best(seeds: Sequence[Numbers], kind: str) -> np.ndarray:
    """Votes or single answers at the temperature whose vote was best on training prompts."""
    return np.array([seed["test"][kind][seed["best"]] for seed in seeds])


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Votes and single answers, by task."""
    fig, axes = plots.figure(1, len(HEADS), width=6)
    for ax, (task, names) in zip(axes.flat, HEADS.items(), strict=True):
        values = {}
        for kind, label in (("single", "single answer"), ("vote", f"majority of {VOTERS}")):
            heads = [values_of(seeds, task, name, kind) for name in names]
            values[label] = np.column_stack([values_of(seeds, task, "test", kind), *heads])
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

"""Not in the paper: what LPO prefers depends on which pairs are formed, and of how many samples.

Three times the same comparison, each time with as many responses whatever the number of samples:
on given rewards without a language model, on the control task `safe_bet` with a small language
model of its own, and on the mixture. The first two have an exact theory beside them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilpo import preferences
from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions
from minilpo.config import LPOConfig
from minilpo.experiments.base import Finding, Numbers, Row, draw_bars, mean_and_half, values_of
from minilpo.experiments.lab import Lab, pairs_per_batch
from minilpo.lpo import fit
from minilpo.rivals.optimum import Rewards, optimum, simulate
from minilpo.seeds import torch_generator
from minilpo.show import plots

PAPER = (
    "(not in the paper) what LPO prefers depends on which pairs are formed, and of how many samples"
)
PAIRS = {"best_worst": "best/worst", "all": "all pairs", "gap": "pairs by gap"}
SAMPLES = (4, 16)
CASES = [(pairs, n) for pairs in PAIRS for n in SAMPLES]
ON_MIXTURE = ("best_worst", "gap")
# The worked example: mostly good, always nearly as good, and a gamble. The last is worst on average
# (0.810, 0.800 and 0.575) and has the best of many samples.
EXAMPLE: Rewards = ({0.9: 0.9, 0.0: 0.1}, {0.8: 1.0}, {0.95: 0.5, 0.2: 0.5})
NAMES = ("0.9 or 0, mean 0.81", "always 0.8", "0.95 or 0.2, mean 0.575")
TASK = "safe_bet"
STEPS, DEMONSTRATIONS = 600, 20_000  # at most, for the language model of that task
EARNINGS = 2048  # training prompts of that task on which each temperature is measured
SIMULATED = 32  # responses of the worked example for each prompt of a round: they cost little
CLOSE = 0.05  # what trained heads may miss of a probability, with so many responses


def measure(lab: Lab) -> Numbers:
    """The worked example, the control task and the mixture."""
    n_responses = SIMULATED * lab.config.lpo.prompts
    example: Numbers = {}
    for pairs, n in CASES:
        generator = torch_generator(lab.seed, f"example {pairs} {n}")
        example[_key(pairs, n)] = learned(EXAMPLE, n, pairs, n_responses, generator)
    control, test, mixture = _control(lab), lab.fixed("test"), {}
    for pairs, n in CASES:
        if pairs in ON_MIXTURE:
            head = lab.head("sequence", **_budget(lab, pairs, n))
            mixture[_key(pairs, n)] = float(lab.adaptive(head.greedy, test)[1].mean())
    return {"example": example, "control": control, "mixture": mixture}


def learned(
    rewards: Rewards,
    n_samples: int,
    pairs: str,
    n_responses: int,
    generator: torch.Generator,
    beta: float = 1.0,
) -> list[float]:
    """The P(τ) to which the real head comes by the real fit, if every prompt is the same to it.

    `optimum.optimum` says where it should come. The generator draws the samples, the head's first
    weights and the order of the pairs.
    """
    choice_ids, drawn = simulate(rewards, n_responses // n_samples, n_samples, generator)
    settings = LPOConfig(loss="eq10", pairs=pairs, beta=beta, samples=n_samples, epochs=3)
    formed = preferences.PAIRS[pairs](drawn, settings.pairs_per_prompt, generator)
    settings = replace(settings, pairs_per_batch=-(-len(formed) // 50))  # 50 steps per epoch
    state = torch.ones(1, 16)
    decisions = Decisions(
        features=state.expand(drawn.numel(), -1),
        choice_ids=choice_ids.reshape(-1, 1),
        mask=torch.ones(drawn.numel(), 1, dtype=torch.bool),
    )
    head = AdaptiveDecoder(16, len(rewards), n_hidden=32, generator=generator)
    for rate in (1e-2, 3e-3, 1e-3):  # ever smaller steps: at last it stands still
        optimizer = torch.optim.Adam(head.parameters(), lr=rate)
        fit(head, decisions, formed, optimizer, settings, generator)
    return head(state)[0].softmax(-1).tolist()


def _control(lab: Lab) -> Numbers:
    """Heads that choose between greedy and temperature 1, what they get, and what theory says."""
    # Theory is told what each temperature earns, so that has to be known well.
    evaluation = replace(lab.config.evaluation, selection_prompts=EARNINGS)
    own = lab.apart(TASK, STEPS, DEMONSTRATIONS, temperatures=(0.0, 1.0), evaluation=evaluation)
    train, test = own.fixed("train", (TASK,)), own.fixed("test", (TASK,))
    earned = [_distribution(column) for column in train.fixed_rewards.T]
    numbers: Numbers = {
        "fixed": test.fixed_rewards.mean(0).tolist(),
        "best_constant": float(own.constant_rewards((TASK,)).mean()),
    }
    for pairs, n in CASES:
        # One round: of several, the one that is best on held-out prompts would be kept, which is
        # another preference than that of the pairs.
        head = own.head("sequence", (TASK,), rounds=1, **_budget(lab, pairs, n))
        rollout, rewards = own.adaptive(head.greedy, test)
        warm = head.head(rollout.decisions.features).softmax(-1).mean(0)[1]
        numbers[_key(pairs, n)] = {
            "warm": float(warm),
            "theory": optimum(earned, n, pairs)[1].item(),
            "reward": float(rewards.mean()),
        }
    return numbers


def _distribution(rewards: np.ndarray) -> dict[float, float]:
    """From each reward that was got to how often."""
    values, counts = np.unique(rewards, return_counts=True)
    return dict(zip(values.tolist(), (counts / len(rewards)).tolist(), strict=True))


def _budget(lab: Lab, pairs: str, n: int) -> dict[str, Any]:
    """As many responses whatever n, and as many prompts in a gradient step whatever the rule."""
    lpo = lab.config.lpo
    return {
        "pairs": pairs,
        "samples": n,
        "prompts": lpo.prompts * max(SAMPLES) // n,
        "pairs_per_batch": pairs_per_batch(lpo, pairs, n),
    }


def _key(pairs: str, n: int) -> str:
    return f"{pairs}, {n}"


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """How far training ends from the theory, who prefers the gamble, and what it is worth."""
    rows: list[Row] = []
    furthest = 0.0
    for pairs, n in CASES:
        label = f"{PAIRS[pairs]} of {n}"
        found = values_of(seeds, "example", _key(pairs, n))  # (seeds, K)
        off = np.abs(found - optimum(EXAMPLE, n, pairs).numpy()).max(1)
        furthest = max(furthest, float(off.max()))
        rows.append(Row(f"example: P of the gamble, {label}", found[:, 2]))
        rows.append(Row(f"example: most that a P is off theory, {label}", off))
    constant = values_of(seeds, "control", "best_constant")
    gambles, missed = {}, []  # whether theory prefers temperature 1; who doesn't clearly do so
    for pairs, n in CASES:
        label, key = f"{PAIRS[pairs]} of {n}", _key(pairs, n)
        warm, theory, reward = (
            values_of(seeds, "control", key, name) for name in ("warm", "theory", "reward")
        )
        rows.append(Row(f"{TASK}: P of temperature 1, {label}", warm))
        rows.append(Row(f"{TASK}: theory's P of temperature 1, {label}", theory))
        rows.append(Row(f"{TASK}: reward - best constant, {label}", reward - constant))
        gambles[label] = bool(theory.mean() > 0.5)
        on_its_side = (np.append(warm, theory) > 0.5) == gambles[label]  # of every seed
        if not on_its_side.all() or Row("", warm).sign(0.5) == 0:
            missed.append(label)
    gains, on_mixture = [], []
    for n in SAMPLES:
        extremes, gap = (values_of(seeds, "mixture", _key(pairs, n)) for pairs in ON_MIXTURE)
        rows.append(Row(f"mixture: reward, best/worst of {n}", extremes))
        rows.append(Row(f"mixture: reward, pairs by gap of {n}", gap))
        gains.append(Row(f"mixture: gap - best/worst, {n} samples", gap - extremes))
        words = gains[-1].told("more than", "less than", "not clearly more or less than")
        on_mixture.append(f"{words} best/worst at {n}")
    fixed = values_of(seeds, "control", "fixed").mean(0)
    sentences = [
        f"The theory holds: on given rewards every P ends within {CLOSE} of the optimum."
        if furthest <= CLOSE
        else f"The theory doesn't hold: on given rewards a P ends {furthest:.2f} from the optimum.",
        _on_the_control(gambles, missed, fixed.tolist()),
        f"On the mixture pairs by gap get {' and '.join(on_mixture)} samples.",
    ]
    return Finding([*rows, *gains], furthest <= CLOSE and not missed, " ".join(sentences))


def _on_the_control(gambles: dict[str, bool], missed: list[str], fixed: list[float]) -> str:
    if missed:
        return f"On {TASK} these don't clearly prefer what theory says: {', '.join(missed)}."
    sides = []
    for name, reward, warm in (("greedy", fixed[0], False), ("temperature 1", fixed[1], True)):
        by = ", ".join(label for label in gambles if gambles[label] == warm) or "none"
        sides.append(f"{name}, which gets {reward:.3f}, by {by}")
    return f"On {TASK} every head prefers what theory says: {'; '.join(sides)}."


def draw(seeds: Sequence[Numbers]) -> Figure:
    """Theory as lines or marks, trained heads as points or bars."""
    fig, [[left, right]] = plots.figure(1, 2, width=5.2, height=3.6)
    _draw_example(left, seeds)
    _draw_control(right, seeds)
    return fig


def _draw_example(ax: Axes, seeds: Sequence[Numbers]) -> None:
    numbers = np.unique(np.geomspace(2, 64, 40).round().astype(int)).tolist()
    curves = np.array([optimum(EXAMPLE, n, "best_worst").tolist() for n in numbers])
    level = optimum(EXAMPLE, 2, "gap").tolist()
    points: dict[str, Any] = {"linestyle": "", "markersize": 6, "capsize": 3}
    colours = (plots.BLUE, plots.GREEN, plots.ORANGE)
    for k, (name, colour) in enumerate(zip(NAMES, colours, strict=True)):
        ax.plot(numbers, curves[:, k], color=colour, label=name)
        ax.axhline(level[k], color=colour, linestyle="--", linewidth=1)
        for pairs, marker, face in (("best_worst", "o", colour), ("gap", "s", "white")):
            found = [values_of(seeds, "example", _key(pairs, n))[:, k] for n in SAMPLES]
            means, halves = mean_and_half(np.column_stack(found))
            ax.errorbar(SAMPLES, means, halves, marker=marker, color=colour, mfc=face, **points)
    ax.set_xscale("log", base=2)
    ax.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
    ax.set(
        xlabel="samples per prompt",
        ylabel="P(choice), lines: theory, points: trained",
        ylim=(0, 1.02),
    )
    ax.set_title(
        "best/worst (full): more samples, another choice\npairs by gap (dashed): always the same"
    )
    plots.legend(ax)


def _draw_control(ax: Axes, seeds: Sequence[Numbers]) -> None:
    places = np.arange(len(CASES))
    warm, theory = (
        np.column_stack([values_of(seeds, "control", _key(*case), name) for case in CASES])
        for name in ("warm", "theory")
    )
    means = draw_bars(ax, places, warm, scale=1, color=plots.BLUE, width=0.6, label="trained")
    marks: dict[str, Any] = {"color": plots.ORANGE, "markeredgecolor": "black"}
    ax.plot(places, theory.mean(0), "D", label="theory", **marks)
    ax.axhline(0.5, color=plots.GREY, linestyle="--", linewidth=1)
    ax.set_xticks(places, [f"{PAIRS[pairs]}\nof {n}" for pairs, n in CASES], fontsize=7)
    ax.set(ylabel="P(temperature 1)", ylim=(0, 1.02))
    cold, hot = values_of(seeds, "control", "fixed").mean(0)
    ax.set_title(
        f"{TASK}: greedy gets {cold:.2f}, temperature 1 gets {hot:.2f};\n"
        f"temperature 1 is preferred in {int((means > 0.5).sum())} of {len(CASES)} cases"
    )
    plots.legend(ax)

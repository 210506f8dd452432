"""Not in the paper: what LPO prefers depends on which pairs are formed, and of how many samples.

Three times the same comparison, each time with as many responses whatever the number of samples:
on given rewards without a language model, on the control task `safe_bet` with a small language
model of its own, and on the mixture. The first two have an exact theory beside them.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilpo import preferences
from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions
from minilpo.config import LPOConfig
from minilpo.experiments.base import Finding, Numbers, Row
from minilpo.experiments.figures import draw_bars, mean_and_half
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
CASES = {f"{pairs}, {n}": (pairs, n) for pairs in PAIRS for n in SAMPLES}
LABELS = {key: f"{PAIRS[pairs]} of {n}" for key, (pairs, n) in CASES.items()}
ON_MIXTURE = ("best_worst", "gap")
# The worked example: mostly good, always nearly as good, and a gamble. The last is worst on average
# (0.810, 0.800 and 0.575) and has the best of many samples.
EXAMPLE: Rewards = ({0.9: 0.9, 0.0: 0.1}, {0.8: 1.0}, {0.95: 0.5, 0.2: 0.5})
NAMES = ("0.9 or 0, mean 0.81", "always 0.8", "0.95 or 0.2, mean 0.575")
TASK = "safe_bet"
STEPS, DEMONSTRATIONS = 600, 20_000  # at most, for the language model of that task
EARNINGS = 2048  # training prompts of that task on which each temperature is measured
SIMULATED = 32  # responses of the worked example for each prompt of a round: they cost little
CLOSE = 0.05  # the most by which a trained probability may miss theory, with so many responses


def measure(lab: Lab) -> Numbers:
    """Measures the worked example, the control task and the mixture."""
    n_responses = SIMULATED * lab.config.lpo.prompts
    example: Numbers = {}
    for key, (pairs, n) in CASES.items():
        generator = torch_generator(lab.seed, f"example {pairs} {n}")
        example[key] = learned(EXAMPLE, n, pairs, n_responses, generator)
    control, test, mixture = _control(lab), lab.fixed("test"), {}
    for key, (pairs, n) in CASES.items():
        if pairs in ON_MIXTURE:
            head = lab.head("sequence", **_budget(lab, pairs, n))
            mixture[key] = float(lab.adaptive(head.greedy, test)[1].mean())
    return {"example": example, "control": control, "mixture": mixture}


def learned(
    rewards: Rewards,
    n_samples: int,
    pairs: str,
    n_responses: int,
    generator: torch.Generator,
    beta: float = 1.0,
) -> list[float]:
    """Trains the real head by the real fit as if every prompt were the same. Returns its P(τ).

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
    """Trains heads that choose between greedy and temperature 1, and asks theory about them."""
    # Theory needs the rewards of each temperature, so these have to be known well.
    evaluation = replace(lab.config.evaluation, selection_prompts=EARNINGS)
    own = lab.apart(TASK, STEPS, DEMONSTRATIONS, temperatures=(0.0, 1.0), evaluation=evaluation)
    train, test = own.fixed("train", (TASK,)), own.fixed("test", (TASK,))
    earned = [_distribution(column) for column in train.fixed_rewards.T]
    numbers: Numbers = {
        "fixed": test.fixed_rewards.mean(0).tolist(),
        "best_constant": float(own.constant_rewards((TASK,)).mean()),
    }
    for key, (pairs, n) in CASES.items():
        # One round: of several, the one that is best on held-out prompts would be kept, which is
        # another preference than that of the pairs.
        head = own.head("sequence", (TASK,), rounds=1, **_budget(lab, pairs, n))
        rollout, rewards = own.adaptive(head.greedy, test)
        warm = head.head(rollout.decisions.features).softmax(-1).mean(0)[1]
        numbers[key] = {
            "warm": float(warm),
            "theory": optimum(earned, n, pairs)[1].item(),
            "reward": float(rewards.mean()),
        }
    return numbers


def _distribution(rewards: np.ndarray) -> dict[float, float]:
    """Computes the share of each reward."""
    values, counts = np.unique(rewards, return_counts=True)
    return dict(zip(values.tolist(), (counts / len(rewards)).tolist(), strict=True))


def _budget(lab: Lab, pairs: str, n: int) -> dict[str, Any]:
    """Settings with as many responses for every n, and as many prompts per step for every rule."""
    lpo = lab.config.lpo
    prompts, batch = lpo.prompts * max(SAMPLES) // n, pairs_per_batch(lpo, pairs, n)
    return {"pairs": pairs, "samples": n, "prompts": prompts, "pairs_per_batch": batch}


def conclude(found: Numbers) -> Finding:
    """Says whether training ends where theory says, and how pairs by gap do on the mixture."""
    rows: list[Row] = []
    furthest = 0.0
    for (key, (pairs, n)), label in zip(CASES.items(), LABELS.values(), strict=True):
        trained = found["example"][key]  # (S, K)
        off = np.abs(trained - optimum(EXAMPLE, n, pairs).numpy()).max(1)
        furthest = max(furthest, float(off.max()))
        rows += [
            Row(f"example: P of the gamble, {label}", trained[:, 2]),
            Row(f"example: most that a P is off theory, {label}", off),
        ]
    control = found["control"]
    gambles, missed = {}, []  # whether theory prefers temperature 1; heads that miss its side
    for key, label in LABELS.items():
        warm, theory = control[key]["warm"], control[key]["theory"]
        gain = control[key]["reward"] - control["best_constant"]
        rows.append(Row(f"{TASK}: P of temperature 1, {label}", warm))
        rows.append(Row(f"{TASK}: theory's P of temperature 1, {label}", theory))
        rows.append(Row(f"{TASK}: reward - best constant, {label}", gain))
        gambles[label] = bool(theory.mean() > 0.5)
        on_its_side = (np.append(warm, theory) > 0.5) == gambles[label]  # of every seed
        if not on_its_side.all() or Row("", warm).sign(0.5) == 0:
            missed.append(label)
    gains, on_mixture = [], []
    for n in SAMPLES:
        extremes, gap = (found["mixture"][f"{pairs}, {n}"] for pairs in ON_MIXTURE)
        rows.append(Row(f"mixture: reward, best/worst of {n}", extremes))
        rows.append(Row(f"mixture: reward, pairs by gap of {n}", gap))
        gains.append(Row(f"mixture: gap - best/worst, {n} samples", gap - extremes))
        words = gains[-1].told("more than", "less than", "not clearly more or less than")
        on_mixture.append(f"{words} best/worst at {n}")
    sentences = [
        f"The theory holds: on given rewards every P ends within {CLOSE} of the optimum."
        if furthest <= CLOSE
        else f"The theory doesn't hold: on given rewards a P ends {furthest:.2f} from the optimum.",
        _on_the_control(gambles, missed, control["fixed"].mean(0)),
        f"On the mixture pairs by gap get {' and '.join(on_mixture)} samples.",
    ]
    return Finding([*rows, *gains], furthest <= CLOSE and not missed, " ".join(sentences))


def _on_the_control(gambles: dict[str, bool], missed: list[str], fixed: np.ndarray) -> str:
    if missed:
        return f"On {TASK} these don't clearly prefer what theory says: {', '.join(missed)}."
    sides = []
    for name, reward, warm in (("greedy", fixed[0], False), ("temperature 1", fixed[1], True)):
        by = ", ".join(label for label in gambles if gambles[label] == warm) or "none"
        sides.append(f"{name}, which gets {reward:.3f}, by {by}")
    return f"On {TASK} every head prefers what theory says: {'; '.join(sides)}."


def draw(found: Numbers) -> Figure:
    """Draws theory as lines or marks, trained heads as points or bars."""
    fig, [[left, right]] = plots.figure(1, 2, width=5.2, height=3.6)
    _draw_example(left, found["example"])
    _draw_control(right, found["control"])
    return fig


def _draw_example(ax: Axes, example: Numbers) -> None:
    numbers = np.unique(np.geomspace(2, 64, 40).round().astype(int)).tolist()
    curves = np.array([optimum(EXAMPLE, n, "best_worst").tolist() for n in numbers])
    level = optimum(EXAMPLE, 2, "gap").tolist()
    points: dict[str, Any] = {"linestyle": "", "markersize": 6, "capsize": 3}
    colours = (plots.BLUE, plots.GREEN, plots.ORANGE)
    for k, (name, colour) in enumerate(zip(NAMES, colours, strict=True)):
        ax.plot(numbers, curves[:, k], color=colour, label=name)
        ax.axhline(level[k], color=colour, linestyle="--", linewidth=1)
        for pairs, marker, face in (("best_worst", "o", colour), ("gap", "s", "white")):
            trained = np.column_stack([example[f"{pairs}, {n}"][:, k] for n in SAMPLES])
            means, halves = mean_and_half(trained)
            ax.errorbar(SAMPLES, means, halves, marker=marker, color=colour, mfc=face, **points)
    ax.set_xscale("log", base=2)
    ax.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
    ylabel = "P(choice), lines: theory, points: trained"
    ax.set(xlabel="samples per prompt", ylabel=ylabel, ylim=(0, 1.02))
    ax.set_title(
        "best/worst (full): more samples, another choice\npairs by gap (dashed): always the same"
    )
    plots.legend(ax)


def _draw_control(ax: Axes, control: Numbers) -> None:
    places = np.arange(len(CASES))
    warm, theory = (
        np.column_stack([control[key][name] for key in CASES]) for name in ("warm", "theory")
    )
    means = draw_bars(ax, places, warm, scale=1, color=plots.BLUE, width=0.6, label="trained")
    marks: dict[str, Any] = {"color": plots.ORANGE, "markeredgecolor": "black"}
    ax.plot(places, theory.mean(0), "D", label="theory", **marks)
    ax.axhline(0.5, color=plots.GREY, linestyle="--", linewidth=1)
    names = [label.replace(" of ", "\nof ") for label in LABELS.values()]
    ax.set_xticks(places, names, fontsize=7)
    ax.set(ylabel="P(temperature 1)", ylim=(0, 1.02))
    cold, hot = control["fixed"].mean(0)
    ax.set_title(
        f"{TASK}: greedy gets {cold:.2f}, temperature 1 gets {hot:.2f};\n"
        f"temperature 1 is preferred in {int((means > 0.5).sum())} of {len(CASES)} cases"
    )
    plots.legend(ax)

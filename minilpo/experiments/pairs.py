"""Not in the paper: what LPO prefers depends on which pairs are formed, and of how many samples.

Three times the same comparison, each time with as many responses whatever the number of samples:
on given rewards without a language model, on the control task `safe_bet` with a small language
model of its own, and on the mixture. The first two have an exact theory beside them.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from minilpo import preferences
from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions
from minilpo.config import LPOConfig
from minilpo.experiments.base import Finding, Numbers, Row
from minilpo.experiments.figures import draw_bars, mean_and_half
from minilpo.experiments.lab import Lab
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
    prompts, n_responses = lab.config.lpo.prompts, SIMULATED * lab.config.lpo.prompts
    example, control, mixture = {}, {}, {}
    # On the control task heads choose between greedy and temperature 1. Theory needs the rewards
    # of both, so these have to be known well.
    evaluation = replace(lab.config.evaluation, selection_prompts=EARNINGS)
    own = lab.apart(TASK, STEPS, DEMONSTRATIONS, temperatures=(0.0, 1.0), evaluation=evaluation)
    earned = []
    for rewards in own.fixed("train", (TASK,)).fixed_rewards.T:
        values, counts = np.unique(rewards, return_counts=True)
        earned.append(dict(zip(values.tolist(), counts / len(rewards), strict=True)))
    for key, (pairs, n) in CASES.items():
        generator = torch_generator(lab.seed, f"example {pairs} {n}")
        example[key] = learned(EXAMPLE, n, pairs, n_responses, generator)
        # As many responses for every n.
        asked: Numbers = {"pairs": pairs, "samples": n, "prompts": prompts * max(SAMPLES) // n}
        # One round: of several, the one that is best on held-out prompts would be kept, which is
        # another preference than that of the pairs.
        head = own.head("sequence", (TASK,), rounds=1, **asked)
        rollout, own_rewards = own.adaptive(head.greedy, own.fixed("test", (TASK,)))
        control[key] = {
            "warm": float(head.head(rollout.decisions.features).softmax(-1).mean(0)[1]),
            "theory": optimum(earned, n, pairs)[1].item(),
            "reward": float(own_rewards.mean()),
        }
        if pairs in ON_MIXTURE:
            on_test = lab.adaptive(lab.head("sequence", **asked).greedy, lab.fixed("test"))
            mixture[key] = float(on_test[1].mean())
    return {"example": example, "control": own.rewards_at(TASK) | control, "mixture": mixture}


def learned(
    rewards: Rewards, n: int, pairs: str, n_responses: int, rng: torch.Generator, beta: float = 1.0
) -> list[float]:
    """Trains the real head by the real fit as if every prompt were the same. Returns its P(τ).

    `optimum.optimum` says where it should come. `rng` draws n samples per prompt, the head's first
    weights and the order of the pairs.
    """
    choice_ids, drawn = simulate(rewards, n_responses // n, n, rng)
    settings = LPOConfig(loss="eq10", pairs=pairs, beta=beta, samples=n, epochs=3)
    formed = preferences.PAIRS[pairs](drawn, settings.pairs_per_prompt, rng)
    settings = replace(settings, pairs_per_batch=-(-len(formed) // 50))  # 50 steps per epoch
    state = torch.ones(1, 16)
    ids = choice_ids.reshape(-1, 1)
    decisions = Decisions(state.expand(len(ids), -1), ids, torch.ones_like(ids, dtype=torch.bool))
    head = AdaptiveDecoder(16, len(rewards), n_hidden=32, generator=rng)
    for rate in (1e-2, 3e-3, 1e-3):  # ever smaller steps: at last it stands still
        optimizer = torch.optim.Adam(head.parameters(), lr=rate)
        fit(head, decisions, formed, optimizer, settings, rng)
    return head(state)[0].softmax(-1).tolist()


def conclude(found: Numbers) -> Finding:
    """Says whether training ends where theory says, and how pairs by gap do on the mixture."""
    example, control, mixture = found["example"], found["control"], found["mixture"]
    of_example, of_control, furthest = [], [], 0.0
    missed = []  # heads that aren't on the side that theory says
    sides: dict[bool, list[str]] = {False: [], True: []}  # if theory prefers temperature 1
    for key, (pairs, n) in CASES.items():
        label, trained = LABELS[key], example[key]  # (S, K)
        off = np.abs(trained - optimum(EXAMPLE, n, pairs).numpy()).max(1)
        furthest = max(furthest, float(off.max()))
        of_example += [
            Row(f"example: P of the gamble, {label}", trained[:, 2]),
            Row(f"example: most that a P is off theory, {label}", off),
        ]
        warm, theory = control[key]["warm"], control[key]["theory"]
        gain = control[key]["reward"] - control["best_constant"]
        p = Row(f"{TASK}: P of temperature 1, {label}", warm)
        of_control += [
            p,
            Row(f"{TASK}: theory's P of temperature 1, {label}", theory),
            Row(f"{TASK}: reward - best constant, {label}", gain),
        ]
        gambles = bool(theory.mean() > 0.5)
        sides[gambles].append(label)
        # On every seed both have to be on this side, and the head clearly.
        if ((np.append(warm, theory) > 0.5) != gambles).any() or p.sign(0.5) == 0:
            missed.append(label)
    gains, of_mixture, on_mixture = [], [], []
    for n in SAMPLES:
        extremes, gap = (mixture[f"{pairs}, {n}"] for pairs in ON_MIXTURE)
        of_mixture.append(Row(f"mixture: reward, best/worst of {n}", extremes))
        of_mixture.append(Row(f"mixture: reward, pairs by gap of {n}", gap))
        gains.append(Row(f"mixture: gap - best/worst, {n} samples", gap - extremes))
        words = gains[-1].told("more than", "less than", "not clearly more or less than")
        on_mixture.append(f"{words} best/worst at {n}")

    holds = f"holds: on given rewards every P ends within {CLOSE} of the optimum"
    if furthest > CLOSE:
        holds = f"doesn't hold: on given rewards a P ends {furthest:.2f} from the optimum"
    cold, hot = control["fixed"].mean(0)
    preferred = (
        f"every head prefers what theory says: "
        f"greedy, which gets {cold:.3f}, by {', '.join(sides[False]) or 'none'}; "
        f"temperature 1, which gets {hot:.3f}, by {', '.join(sides[True]) or 'none'}"
    )
    if missed:
        preferred = f"these don't clearly prefer what theory says: {', '.join(missed)}"
    sentence = (
        f"The theory {holds}. On {TASK} {preferred}. "
        f"On the mixture pairs by gap get {' and '.join(on_mixture)} samples."
    )
    rows = [*of_example, *of_control, *of_mixture, *gains]
    return Finding(rows, furthest <= CLOSE and not missed, sentence)


def draw(found: Numbers) -> plots.Figure:
    """Draws theory as lines or marks, trained heads as points or bars."""
    fig, [[left, right]] = plots.figure(1, 2, width=5.2, height=3.6)
    # 1. The worked example, by the number of samples.
    numbers = np.unique(np.geomspace(2, 64, 40).round().astype(int)).tolist()
    curves = np.array([optimum(EXAMPLE, n, "best_worst").tolist() for n in numbers])
    level = optimum(EXAMPLE, 2, "gap").tolist()
    points: dict[str, Any] = {"linestyle": "", "markersize": 6, "capsize": 3}
    colours = (plots.BLUE, plots.GREEN, plots.ORANGE)
    for k, (name, colour) in enumerate(zip(NAMES, colours, strict=True)):
        left.plot(numbers, curves[:, k], color=colour, label=name)
        left.axhline(level[k], color=colour, linestyle="--", linewidth=1)
        for pairs, marker, face in (("best_worst", "o", colour), ("gap", "s", "white")):
            of_choice = [found["example"][f"{pairs}, {n}"][:, k] for n in SAMPLES]
            means, halves = mean_and_half(np.column_stack(of_choice))
            style = {"marker": marker, "color": colour, "mfc": face, **points}
            left.errorbar(SAMPLES, means, halves, **style)
    left.set_xscale("log", base=2)
    left.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
    left.set(ylabel="P(choice), lines: theory, points: trained", ylim=(0, 1.02))
    title = (
        "best/worst (full): more samples, another choice\npairs by gap (dashed): always the same"
    )
    left.set(xlabel="samples per prompt", title=title)
    plots.legend(left)
    # 2. The control task, by the case.
    control = found["control"]
    warm, theory = (np.array([control[key][k] for key in CASES]).T for k in ("warm", "theory"))
    names = [label.replace(" of ", "\nof ") for label in LABELS.values()]
    [means] = draw_bars(right, names, {"trained": warm}, [plots.BLUE], scale=1)
    marks: dict[str, Any] = {"color": plots.ORANGE, "markeredgecolor": "black"}
    right.plot(theory.mean(0), "D", label="theory", **marks)
    right.axhline(0.5, color=plots.GREY, linestyle="--", linewidth=1)
    right.tick_params("x", labelsize=7)
    cold, hot = control["fixed"].mean(0)
    right.set(ylabel="P(temperature 1)", ylim=(0, 1.02))
    right.set_title(
        f"{TASK}: greedy gets {cold:.2f}, temperature 1 gets {hot:.2f};\n"
        f"temperature 1 is preferred in {int((means > 0.5).sum())} of {len(CASES)} cases"
    )
    plots.legend(right)
    return fig

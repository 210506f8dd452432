"""Table 1: on free continuations, the token-level head learns to avoid repeats."""

import numpy as np

from minilpo.decoding.choices import Temperatures
from minilpo.evaluation.measure import learned_constant
from minilpo.experiments.base import Finding, Numbers, Row, compared, direction, percent_at
from minilpo.experiments.figures import draw_bars
from minilpo.experiments.lab import Lab
from minilpo.show import plots
from minilpo.tasks.continuation import repeated

PAPER = (
    "free continuation, token level: share of repeated 3-grams, greedy 0.36%, adaptive 0.22%; "
    "94% of choices not greedy"
)
TASK = "continuation"
TEMPERATURES = (0.0, 0.1, 0.2, 0.4, 0.6)
SAMPLES = 10  # the paper's number


def measure(lab: Lab) -> Numbers:
    """Measures repeats and rewards at every fixed temperature and with the head."""
    test = lab.fixed("test", (TASK,), TEMPERATURES)
    head = lab.head("token", (TASK,), Temperatures(TEMPERATURES), samples=SAMPLES)
    rollout, rewards = lab.adaptive(head.greedy, test)
    decisions, constant = rollout.decisions, learned_constant(head.constant)
    # Repeats are counted in the texts: the reward, which trains the head, asks for more than that.
    repeats = np.array([repeated(response) for response in test.fixed.responses])
    fixed_repeats = repeats.reshape(test.fixed_rewards.shape)  # (P, K)
    return {
        "repeats": fixed_repeats.mean(0).tolist(),
        "adaptive": float(np.mean([repeated(response) for response in rollout.responses])),
        "learned_constant": float(fixed_repeats[:, constant].mean()),
        "not_greedy": float((decisions.choice_ids[decisions.mask] > 0).double().mean()),
        "fixed_rewards": test.fixed_rewards.mean(0).tolist(),
        "reward": float(rewards.mean()),
        "learned_constant_reward": float(test.fixed_rewards[:, constant].mean()),
    }


def conclude(found: Numbers) -> Finding:
    """Compares repeats with greedy's and the warmest's, and the reward with a constant's."""
    head, reward = found["adaptive"], found["reward"]
    repeats, rewards = found["repeats"], found["fixed_rewards"]  # (S, K)
    to_greedy = Row("head - greedy (points)", 100 * (head - repeats[:, 0]), "-0.14")
    to_warmest = Row("head - warmest (points)", 100 * (head - repeats[:, -1]))
    gain = Row("reward: head - learned constant", reward - found["learned_constant_reward"])
    rows = [
        *percent_at("repeats at", TEMPERATURES, repeats, {0.0: "0.36"}),
        Row("repeats with the head (%)", 100 * head, "0.22"),
        Row("repeats with a learned constant (%)", 100 * found["learned_constant"]),
        Row("choices that aren't greedy (%)", 100 * found["not_greedy"], "94"),
        to_greedy,
        to_warmest,
        *(Row(f"reward at t={t:g}", rewards[:, k]) for k, t in enumerate(TEMPERATURES)),
        Row("reward with the head", reward),
        gain,
    ]
    agrees = to_greedy.sign() < 0
    how = (
        f"the head's share of repeats is {compared({'that of greedy': to_greedy})} "
        f"({to_greedy.text(1)} points), "
        f"{compared({'that of the warmest temperature': to_warmest})} ({to_warmest.text(1)}). "
        "In its reward, which asks for new sentences on the subject too, "
        f"it is {compared({'a learned constant': gain})} ({gain.text()})."
    )
    return Finding(rows, agrees, direction(agrees, how))


def draw(found: Numbers) -> plots.Figure:
    """Draws repeats by temperature, and with the head."""
    fig, [[ax]] = plots.figure(1, 1, width=5)
    values = np.column_stack([found["repeats"], found["adaptive"]])
    colours = [plots.BLUE] * len(TEMPERATURES) + [plots.ORANGE]
    names = [*Temperatures(TEMPERATURES).names, "head"]
    [mean] = draw_bars(ax, names, {"": values}, [colours])
    ax.set(xlabel="fixed temperature, or the head", ylabel="repeated 3-grams (%)", ylim=(0, None))
    ax.set_title(f"Repeats: {100 * mean[0]:.0f}% when greedy, {100 * mean[-1]:.1f}% with the head")
    return fig

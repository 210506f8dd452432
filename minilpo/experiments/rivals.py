"""Not in the paper: the head against all its rivals, each with as many responses to use.

A rule tries out its settings on training prompts and keeps the best; a head learns. Then each
writes several responses to every test prompt, also on the way, with a part of the responses.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minilpo.evaluation.measure import Prompts, prompts_to_measure
from minilpo.evaluation.statistics import mean_over_tasks
from minilpo.evaluation.summary import interval_of
from minilpo.experiments import methods
from minilpo.experiments.base import Finding, Numbers, Row
from minilpo.experiments.lab import MIXTURE, Head, Lab
from minilpo.experiments.methods import HEADS
from minilpo.machine.text import decimal
from minilpo.show import plots

PAPER = (
    "(not in the paper) a head that learns is better than every rule that doesn't, "
    "and better still if it may choose min-p too"
)
LEVELS = ("sequence", "token")
BEST_RULE = "best rule"  # of those with one setting for all prompts, by its training prompts
MAIN_HEADS = [f"{level}: {kind} head" for level in LEVELS for kind in ("temperature", "joint")]
LEARNED_ALIKE = {  # temperature heads that learn by other rules
    level: [n for n in HEADS if n.startswith(level) and not n.endswith(("head", "min-p"))]
    for level in LEVELS
}
PAIRS = [  # the differences that are told
    *((f"{level}: joint head", f"{level}: temperature head") for level in LEVELS),
    *((f"{level}: joint head", f"{level}: no min-p") for level in LEVELS),
    *((name, BEST_RULE) for name in MAIN_HEADS),
    *((name, "constant per kind") for name in MAIN_HEADS),
    *((f"{level}: joint head", "joint constant per kind") for level in LEVELS),
    *((name, f"{level}: temperature head") for level in LEVELS for name in LEARNED_ALIKE[level]),
    ("token: REINFORCE, Eq. 11", "token: REINFORCE"),
]


def measure(lab: Lab) -> Numbers:
    """Measures every method's test rewards, and how many responses it took to get there."""
    evaluation = lab.config.evaluation
    # Half of the prompts, because several responses are written to each.
    half = replace(evaluation, test_prompts=max(2, evaluation.test_prompts // 2))
    test = prompts_to_measure(lab.tasks(MIXTURE), "test", half, lab.seed)
    names, (whole, early, spent) = test.names, methods.budget_of(lab)
    numbers: Numbers = {}
    of_prompt: dict[str, np.ndarray] = {}  # by method, (P,)

    def note(name: str, setting: str, curve: dict[int, np.ndarray]) -> None:
        n_responses, of_prompt[name] = list(curve.items())[-1]
        numbers[name] = {
            "setting": setting,
            "responses": n_responses,
            "reward": float(mean_over_tasks(of_prompt[name], names)),
            "tasks": {task: float(of_prompt[name][names == task].mean()) for task in MIXTURE},
            "curve": [[n, float(mean_over_tasks(rewards, names))] for n, rewards in curve.items()],
        }

    # 1. Rules: all settings on training prompts, and the best ones on test prompts.
    on_training = {}
    for name, rule in methods.rules_of(lab).items():
        tried = methods.try_out(lab, rule, spent[-1])
        measured: dict[tuple[int, ...], np.ndarray] = {}
        for group in rule.groups:
            curve = {}
            for n in spent:
                prompts, rewards = methods.part_of(*tried, n)
                best = methods.best_settings(prompts, rewards, group)
                own = methods.settings_for(test, best, group)
                # More training prompts often confirm the same settings: don't measure these again.
                if own not in measured:
                    measured[own] = methods.rewards_of_rule(lab, test, rule, own)
                curve[rewards.size] = measured[own]
            settings = [f"{g} {rule.words.format(*rule.settings[k])}" for g, k in best.items()]
            note(f"{name} {group}".strip(), "; ".join(settings).strip(), curve)
            if not group:
                on_training[name] = float(tried[1].mean(0).max())

    # 2. Heads: learned from as many responses, validation included.
    for name, asked in HEADS.items():
        head = lab.head(**asked, **whole)
        curve, kept = rewards_by_round(lab, head, test, spent[1:])
        if name in MAIN_HEADS:
            first = lab.head(**asked, **early).greedy
            curve = {spent[0]: methods.rewards_by(lab, test, first), **curve}
        note(name, f"after round {kept}", curve)

    # 3. Differences, prompt by prompt.
    best_rule = max(on_training, key=on_training.__getitem__)
    of_prompt[BEST_RULE] = of_prompt[best_rule]
    differences = {}
    for one, other in PAIRS:
        values = of_prompt[one] - of_prompt[other]
        ci95 = interval_of(values, names, resamples=evaluation.resamples, seed=lab.seed)
        estimate = float(mean_over_tasks(values, names))
        differences[f"{one} - {other}"] = {"estimate": estimate, "ci95": ci95}
    chosen = {"on_training": on_training, "best_rule": best_rule, "differences": differences}
    return {"budget": spent[-1], "methods": numbers, **chosen}


def rewards_by_round(
    lab: Lab, head: Head, test: Prompts, spent: Sequence[int]
) -> tuple[dict[int, np.ndarray], int]:
    """Measures the test rewards, (P,), of the head that is kept after each round.

    Returns them by the responses spent, and the round whose head is kept in the end.
    """
    curve, held_out = {}, [entry["validation_reward"] for entry in head.log]
    for n, n_responses in enumerate(spent, start=1):
        kept = 1 + int(np.argmax(held_out[:n]))
        if kept == n:  # else it is still the one of the round before
            rewards = methods.rewards_by(lab, test, head.after(n))
        curve[n_responses] = rewards
    return curve, kept


def conclude(found: Numbers) -> Finding:
    """Says which methods win, by how much, and which don't."""
    names = sorted(found["methods"], key=lambda name: -reward_of(found, name).mean)
    rules_first = sorted(names, key=lambda name: name in HEADS)
    rows = [Row("responses that each may use", found["budget"])]
    rows += [reward_of(found, name) for name in rules_first]
    differences = {}
    for first, second in PAIRS:
        of_pair = found["differences"][f"{first} - {second}"]
        n_above = (of_pair["ci95"][:, 0] > 0).sum()  # by its interval over prompts
        label = f"{first} - {second} [{n_above} of {len(of_pair['ci95'])}]"
        differences[first, second] = Row(label, of_pair["estimate"])
    decisive = [*PAIRS[: len(LEVELS)], *((name, BEST_RULE) for name in MAIN_HEADS)]
    agrees = all(differences[pair].sign() > 0 for pair in decisive)
    files = {"methods.txt": listing(found, names).encode()}
    return Finding([*rows, *differences.values()], agrees, sentence(found, differences), files)


def reward_of(found: Numbers, name: str) -> Row:
    """Makes the row of a method's reward, with the settings that were chosen on the seeds."""
    method = found["methods"][name]
    if name in HEADS or " per " in name:
        return Row(name, method["reward"])
    return Row(f"{name} ({' | '.join(dict.fromkeys(method['setting']))})", method["reward"])


def mean_of_best_rule(found: Numbers) -> float:
    """Computes the mean reward of each seed's best rule by training prompts."""
    best = enumerate(found["best_rule"])
    return float(np.mean([found["methods"][name]["reward"][seed] for seed, name in best]))


def sentence(found: Numbers, differences: dict[tuple[str, str], Row]) -> str:
    """Tells the differences in words."""
    rewards = {name: method["reward"] for name, method in found["methods"].items()}
    mean = {name: float(reward.mean()) for name, reward in rewards.items()}
    highest, hindsight = (
        max(rewards, key=mean.__getitem__),
        max(found["on_training"], key=mean.__getitem__),
    )
    to_hindsight = {name: Row("", rewards[name] - rewards[hindsight]) for name in MAIN_HEADS}
    best_rules = " | ".join(dict.fromkeys(found["best_rule"]))

    def against(second: str, firsts: Sequence[str]) -> str:
        return sorted_out({name: differences[name, second] for name in firsts})

    def joint_against(kind: str) -> str:
        pairs = {level: (f"{level}: joint head", f"{level}: {kind}") for level in LEVELS}
        return sorted_out({f"{level} level": differences[pair] for level, pair in pairs.items()})

    parts = [
        f"With {found['budget'][0]:,} responses each, {highest} has the highest mean reward "
        f"({mean[highest]:.3f}).",
        f"Heads against the best rule without learning ({best_rules}, "
        f"{mean_of_best_rule(found):.3f}): {against(BEST_RULE, MAIN_HEADS)}.",
        f"Against the one that is highest on the test prompts themselves, which favours it "
        f"({hindsight}, {mean[hindsight]:.3f}): {sorted_out(to_hindsight)}.",
        "Joint heads, which choose a temperature and whether there is min-p, against heads for six "
        f"temperatures: {joint_against('temperature head')}; against the same temperatures "
        f"without min-p: {joint_against('no min-p')}.",
        "Heads against the best temperature for each kind of prompt, for which someone has to name "
        f"the kind ({mean['constant per kind']:.3f}): {against('constant per kind', MAIN_HEADS)}.",
    ]
    parts += [
        f"At {level} level, other ways to learn, against LPO by best and worst response: "
        f"{against(f'{level}: temperature head', alike)}."
        for level, alike in LEARNED_ALIKE.items()
    ]
    end = "Better and worse are beyond the interval over seeds. In brackets after a difference: "
    end += "on how many seeds the interval over test prompts is above 0."
    return " ".join([*parts, end])


def sorted_out(differences: dict[str, Row]) -> str:
    """Sorts named differences into better, worse and undecided.

    >>> rows = {"a": Row("", [0.1, 0.102]), "b": Row("", [0.1, -0.1]), "c": Row("", [-0.2, -0.2])}
    >>> sorted_out(rows)
    'better: a (+0.101); worse: c (-0.200); undecided: b (+0.000)'
    """
    parts: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
    for name, row in differences.items():
        parts[row.told(*parts)].append(f"{name} ({decimal(row.mean, '+')})")
    return "; ".join(f"{word}: {', '.join(named)}" for word, named in parts.items() if named)


def listing(found: Numbers, names: Sequence[str]) -> str:
    """Lists every method with its rewards by task, its responses and the settings of each seed."""
    width = max(map(len, names)) + 2
    heads = "".join(f"{task:>19}" for task in MIXTURE)
    lines = [f"{'':<{width}}{'mean':>7}{heads}{'responses':>12}   setting, seed by seed"]
    for name in names:
        method = found["methods"][name]
        columns = "".join(f"{method['tasks'][task].mean():19.3f}" for task in MIXTURE)
        mean, responses = f"{method['reward'].mean():7.3f}", f"{method['responses'].max():12,}"
        settings = " | ".join(method["setting"])
        lines.append(f"{name:<{width}}{mean}{columns}{responses}   {settings}")
    return "\n".join(lines) + "\n"


def draw(found: Numbers) -> plots.Figure:
    """Draws mean reward against responses spent: rules, then the heads of each level."""
    fig, [axes] = plots.figure(1, 1 + len(LEVELS), width=5, height=4.6)
    parts = {"Not learned": [name for name in found["methods"] if name not in HEADS]}
    parts |= {f"Heads, {n} level": [name for name in HEADS if name.startswith(n)] for n in LEVELS}
    for ax, (title, names) in zip(axes, parts.items(), strict=True):
        styles = itertools.product(("-", "--", ":"), (*plots.COLOURS, "black"))
        last = {name: reward_of(found, name) for name in names}
        short = {name: name.split(": ")[-1] for name in names}  # the title says the level
        for (name, row), (style, colour) in zip(last.items(), styles, strict=False):
            # The points of a method are at the same numbers of responses on every seed.
            n_responses, rewards = found["methods"][name]["curve"].mean(0).T
            # Without its sign: a reward is no difference.
            label = f"{short[name]} {row.text().removeprefix('+')}"
            ax.plot(n_responses, rewards, f"o{style}", color=colour, markersize=3, label=label)
        best = short[max(last, key=lambda name: last[name].mean)]
        ax.set(xscale="log", xlabel="responses spent (thousands)")
        ax.set_title(f"{title}\nhighest: {best}")
        points = found["methods"][names[0]]["curve"][0, :, 0].astype(int).tolist()
        ax.set_xticks(points, [f"{n / 1000:.2g}" for n in points])
        ax.set_xticks([], minor=True)
        # Their names beside the axes, in the order in which the lines end.
        lines = sorted(ax.lines, key=lambda line: -float(np.asarray(line.get_ydata())[-1]))
        plots.legend(ax, handles=lines, loc="center left", bbox_to_anchor=(1, 0.5))
    axes[0].set_ylabel("mean reward on test prompts")
    best_rule = mean_of_best_rule(found)
    for ax in axes[1:]:
        ax.axhline(best_rule, label="_best rule", color=plots.GREY, linestyle=":", linewidth=1)
        place: dict[str, Any] = {"va": "top", "transform": ax.get_yaxis_transform()}
        ax.text(0.01, best_rule, "best rule", color=plots.GREY, fontsize=8, **place)
    # The same scale, so that heights compare.
    bounds = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(bounds[:, 0].min(), bounds[:, 1].max())
    return fig

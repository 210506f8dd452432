"""What a run shows a person: the result table, the figures and a few responses, all made from its results."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from minilpo import plots
from minilpo.evaluation import Measured
from minilpo.files import write_bytes
from minilpo.rollout import Rollout
from minilpo.strip import Strip
from minilpo.text import printable
from minilpo.tokenizer import Tokenizer

FIGURES = ("reward_by_temperature.png", "win_rate.png", "chosen_temperatures.png", "training.png", "descriptions.txt")


def result_table(metrics: dict[str, Any]) -> str:
    """Mean rewards as plain text: fixed temperatures, the head, the oracle; then what it comes to."""
    temperatures, mean = metrics["temperatures"], metrics["mean"]
    width = max(len(name) for name in [*metrics["tasks"], "mean reward"]) + 2
    columns = [f"{f't={t:g}':>{max(7, len(f't={t:g}') + 2)}}" for t in temperatures]
    header = f"{'mean reward':<{width}}" + "".join(columns)
    lines = [f"{header}{'head':>8}{'oracle':>8}{'chosen t':>10}"]
    for name, task in [*metrics["tasks"].items(), ("mean", mean)]:
        numbers = "".join(f"{reward:{len(column)}.3f}" for reward, column in zip(task["fixed"], columns, strict=True))
        numbers += f"{task['adaptive']:8.3f}{task['oracle']:8.3f}"
        chosen = f"{task['chosen_temperature']:10.2f}" if "chosen_temperature" in task else ""
        lines.append(f"{name:<{width}}{numbers}{chosen}")
    best, gain = mean["best_fixed"], mean["gain_over_best_fixed"]
    closed = "" if mean["gap_closed"] is None else f"; {100 * mean['gap_closed']:.0f}% of the gap to the oracle"
    lines += [
        "",
        f"best constant, chosen on training prompts: t={best['temperature']:g}, mean reward {best['reward']:.3f}",
        f"head: {mean['adaptive']:.3f}, a gain of {gain['estimate']:+.3f} (95% interval {gain['ci95'][0]:+.3f} to "
        f"{gain['ci95'][1]:+.3f}){closed}",
    ]
    if "controls" in metrics:
        lines += _control_lines(metrics["controls"])
    for name, task in metrics["tasks"].items():
        if "two_temperatures" in task:
            rule = task["two_temperatures"]
            lines.append(
                f"{name}: first words at {task['first_word_temperature']:.2f}, the rest at {task['other_temperature']:.2f}; "
                f"the best rule of two temperatures ({rule['first']:g} and {rule['rest']:g}) gets {rule['reward']:.3f}"
            )
    lines += _collapse_lines(metrics)
    if "ood" in metrics:
        ood = metrics["ood"]["mean"]
        gain = ood["gain_over_best_fixed"]
        lines.append(
            f"new wordings or subjects: best constant {ood['best_fixed']['reward']:.3f}, head {ood['adaptive']:.3f}, "
            f"a gain of {gain['estimate']:+.3f} ({gain['ci95'][0]:+.3f} to {gain['ci95'][1]:+.3f})"
        )
    return "\n".join(lines)


def _collapse_lines(metrics: dict[str, Any]) -> list[str]:
    """A word about a head that has become a constant: then there is nothing adaptive to be seen."""
    histograms = [task["histogram"] for task in metrics["tasks"].values()]
    for k, temperature in enumerate(metrics["temperatures"]):
        if all(shares[k] == 1 for shares in histograms):
            return [
                f"the head chose t={temperature:g} every single time: it collapsed to one temperature and adapts to nothing"
            ]
    return []


def _control_lines(controls: dict[str, Any]) -> list[str]:
    def said(difference: dict[str, Any]) -> str:
        low, high = difference["ci95"]
        return f"{difference['estimate']:+.3f} ({low:+.3f} to {high:+.3f})"

    constant = controls["learned_constant"]
    return [
        f"controls: temperatures at random {controls['random_head']['reward']:.3f}; a head that sees nothing "
        f"{constant['reward']:.3f}, always at t={constant['temperature']:g}",
        f"of the gain, {said(controls['found_a_better_constant'])} is a better constant, "
        f"{said(controls['adapted_to_the_context'])} is adapting to the context",
    ]


def example_responses(test: Measured, temperatures: Sequence[float], n_per_task: int = 4) -> str:
    """The first test prompts of every task: what the head wrote, and the same prompt at the lowest and highest temperature."""
    lines, K = [], len(temperatures)
    for name in dict.fromkeys(test.names.tolist()):
        for p in (test.names == name).nonzero()[0][:n_per_task].tolist():
            chosen = test.adaptive.temperatures[p][test.adaptive.decision_mask[p]].mean()
            lines += [f"[{name}] {test.prompts[p]}"]
            lines += [f"  head, t={chosen:.2g}, reward {test.adaptive_rewards[p]:.2f}: {test.adaptive.responses[p]}"]
            for k in (0, K - 1):
                response = test.fixed.responses[p * K + k]
                lines += [f"  fixed t={temperatures[k]:g}, reward {test.fixed_rewards[p, k]:.2f}: {response}"]
            lines.append("")
    return "\n".join(map(printable, lines))


def strips_of(rollout: Rollout, tokenizer: Tokenizer) -> list[Strip]:
    """Every response of a rollout with the temperature of each token, its end token left out."""
    length_of_all = rollout.token_ids.shape[1]  # a single temperature is that of all tokens
    strips, choices = [], [round(choice, 6) for choice in rollout.temperature_choices.tolist()]
    for row in range(len(rollout.responses)):
        length = int(rollout.response_mask[row].sum())
        token_ids, chosen = rollout.token_ids[row, :length], rollout.temperature_ids[row].expand(length_of_all)[:length]
        said = token_ids != tokenizer.eos_id
        temperatures = [choices[i] for i in chosen[said].tolist()]
        prompt = rollout.prompts[row // rollout.n_samples]
        strips.append(Strip(prompt, tokenizer.pieces(token_ids[said].tolist()), temperatures, choices))
    return strips


def draw_figures(
    metrics: dict[str, Any], pretrain_log: list[dict[str, float]], lpo_log: list[dict[str, Any]], folder: Path
) -> list[Path]:
    """Writes the figures as PNG, and what each shows in words as `descriptions.txt`. Returns all paths."""
    temperatures, tasks = metrics["temperatures"], metrics["tasks"]
    drawn: dict[str, tuple[Figure, list[str]]] = {}

    fig, axes = plots.figure(1, len(tasks))
    said = [
        plots.reward_by_temperature(ax, name, temperatures, task["fixed"], task["chosen_temperature"], task["adaptive"])
        for ax, (name, task) in zip(axes.flat, tasks.items(), strict=True)
    ]
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower left")
    fig.suptitle("No single temperature serves every task" if _differ(tasks) else "One temperature serves every task")
    drawn["reward_by_temperature"] = fig, said

    fig, axes = plots.figure(1, 1, width=5)
    rates, intervals = metrics["win_rate"].values(), metrics["win_rate_ci95"].values()
    drawn["win_rate"] = fig, [plots.win_rates(axes[0, 0], temperatures, list(rates), list(intervals))]

    fig, axes = plots.figure(1, len(tasks))
    said = [
        plots.choice_histogram(ax, name, temperatures, task["histogram"], task["chosen_temperature"])
        for ax, (name, task) in zip(axes.flat, tasks.items(), strict=True)
    ]
    fig.suptitle("Which temperature the head chooses, task by task (the paper's Figure 4 in miniature)")
    drawn["chosen_temperatures"] = fig, said

    fig, axes = plots.figure(1, 4)
    steps = [entry["step"] for entry in pretrain_log]
    losses = {"training": [e["loss"] for e in pretrain_log], "held-out": [e["held_out_loss"] for e in pretrain_log]}
    epochs = [epoch for entry in lpo_log for epoch in entry["epochs"]]
    count = list(range(1, len(epochs) + 1))
    margins, entropies = [epoch["margin"] for epoch in epochs], [epoch["entropy"] for epoch in epochs]
    rounds = [entry["round"] for entry in lpo_log]
    breaks = [i + 0.5 for i in range(1, len(epochs)) if i % len(lpo_log[0]["epochs"]) == 0]
    rewards = {"sampled": [e["sampled_reward"] for e in lpo_log], "held-out, greedy": [e["validation_reward"] for e in lpo_log]}
    title = f"Language model: {losses['held-out'][-1]:.2f} nats a token"
    said = [plots.curve(axes[0, 0], steps, losses, "pretraining step", "loss (nats a token)", title)]
    axes[0, 0].set_ylim(bottom=0)
    said += [
        plots.curve(axes[0, 1], count, {"margin": margins}, "LPO epoch", "margin (nats)", "Each round draws new pairs", breaks)
    ]
    title = f"The head's entropy: {entropies[0]:.2f} to {entropies[-1]:.2f}"
    said += [plots.curve(axes[0, 2], count, {"entropy": entropies}, "LPO epoch", "entropy (nats)", title, breaks)]
    axes[0, 2].set_ylim(bottom=0)
    title = f"Held-out reward: best {max(rewards['held-out, greedy']):.3f}"
    said += [plots.curve(axes[0, 3], rounds, rewards, "LPO round", "mean reward", title)]
    axes[0, 3].set_xticks(rounds)
    drawn["training"] = fig, said

    paths = []
    for name, (fig, _) in drawn.items():
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", metadata={"Software": None})  # the same bytes for the same figure
        paths.append(folder / f"{name}.png")
        write_bytes(paths[-1], buffer.getvalue())
    words = "\n\n".join(f"{name}.png\n" + "\n".join(said) for name, (_, said) in drawn.items())
    paths.append(folder / "descriptions.txt")
    write_bytes(paths[-1], (words + "\n").encode())
    return paths


def _differ(tasks: dict[str, Any]) -> bool:
    return len({max(range(len(task["fixed"])), key=task["fixed"].__getitem__) for task in tasks.values()}) > 1

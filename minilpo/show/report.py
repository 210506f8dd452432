"""The results of a run as a person reads them: table, sentences, figures and a few responses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.rollout import Rollout
from minilpo.evaluation.measure import Compared
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.machine.text import decimal, printable
from minilpo.setting import have_rules
from minilpo.show import plots
from minilpo.show.strip import Strip

FIGURES = "reward_by_temperature", "win_rate", "chosen_temperatures", "training"


class Picture(NamedTuple):
    """A figure in the forms in which it is shown."""

    name: str  # of its file
    title: str  # its finding, if it has several panels
    png: bytes
    panels: list[bytes]  # each panel alone, for narrow pages
    sentences: list[str]  # on each panel


# The table


def reward_rows(metrics: dict[str, Any]) -> dict[str, list[str]]:
    """Writes the table of mean rewards: a cell per task, last for their mean."""
    columns = [*metrics["tasks"].values(), metrics["mean"]]

    def row(key: str) -> list[str]:
        return [f"{column[key]:.3f}" for column in columns]

    rows = {
        f"t={name}": [f"{column['fixed'][k]:.3f}" for column in columns]
        for k, name in enumerate(metrics["choices"])
    }
    rows["head"] = row("adaptive")
    rows["its 95% interval"] = [interval(column.get("adaptive_ci95")) for column in columns]
    rows["best per task"], rows["best per kind"] = row("best_per_task"), row("best_per_kind")
    for who, key in (("at random", "random_head"), ("sees nothing", "learned_constant")):
        if control := metrics.get("controls", {}).get(key):
            rewards = [*control["tasks"].values(), control["reward"]]
            rows[who] = [f"{reward:.3f}" for reward in rewards]
    chosen = [column.get("chosen_temperature") for column in columns]
    rows["chosen t"] = ["" if t is None else f"{t:.2f}" for t in chosen]
    return rows


def interval(bounds: Sequence[float] | None, sign: str = "-") -> str:
    """Writes an interval of mean rewards; one prompt has none."""
    return " to ".join(decimal(bound, sign) for bound in bounds) if bounds else ""


def result_table(metrics: dict[str, Any]) -> str:
    """Writes mean rewards as plain text, a line per task, and the conclusions below."""
    rows = reward_rows(metrics)
    shown = [f"t={name}" for name in metrics["choices"]] + ["head", "best per task", "chosen t"]
    # The parts of a name stand in several lines, its last in the lowest.
    heads = [name.split(", ") for name in shown]
    depth = max(map(len, heads))
    first = [*[""] * (depth - 1), "mean reward", *metrics["tasks"], "mean"]
    columns = [[f"{cell:<{max(map(len, first))}}" for cell in first]]
    for name, head in zip(shown, heads, strict=True):
        cells = [*[""] * (depth - len(head)), *head, *rows[name]]
        columns.append([f"{cell:>{max(map(len, cells)) + 2}}" for cell in cells])
    lines = ["".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return "\n".join([*lines, "", *conclusions(metrics)])


# The sentences


def conclusions(metrics: dict[str, Any]) -> list[str]:
    """Says what follows from the numbers of `metrics.json`; the verdict comes first.

    Terminal and report show the same sentences.
    """
    mean, tasks, names = metrics["mean"], metrics["tasks"], metrics["choices"]
    best = mean["best_fixed"]
    lines = [
        verdict(mean["gain_over_best_fixed"]),
        f"The best constant, chosen on training prompts, is t={best['name']}: mean reward "
        f"{best['reward']:.3f}. The head gets {mean['adaptive']:.3f}.",
        f"{_gap_closed(mean)} Against the best constant per task, {mean['best_per_task']:.3f}, the "
        f"head gains {_difference(mean['gain_over_best_per_task'])}; against the best per kind of "
        f"prompt, {mean['best_per_kind']:.3f}, {_difference(mean['gain_over_best_per_kind'])}.",
        _task_by_task(tasks, names.index(best["name"])),
    ]
    if controls := metrics.get("controls"):
        constant, at_random = controls["learned_constant"], controls["random_head"]
        lines += [
            f"Temperatures at random get {at_random['reward']:.3f}. A head that sees nothing had "
            "the same training with an input of zeros: it could only learn a constant, "
            f"t={constant['name']}, and gets {constant['reward']:.3f}.",
            "So the gain over the best constant has two parts: "
            f"{_difference(controls['found_a_better_constant'])} for a better constant, "
            f"{_difference(controls['adapted_to_the_context'])} for adapting to the context.",
        ]
    for name, task in tasks.items():
        if rule := task.get("two_temperatures"):
            lines.append(
                f"{name}: first words at {task['first_word_temperature']:.2f}, "
                f"the rest at {task['other_temperature']:.2f}; "
                f"the best rule of two temperatures ({rule['first_name']} and {rule['rest_name']}) "
                f"gets {rule['reward']:.3f}."
            )
    for k, name in enumerate(names):
        # A head that has become a constant adapts to nothing, whatever it gains.
        if all(task["histogram"][k] == 1 for task in tasks.values()):
            lines.append(
                f"The head chose t={name} every single time: "
                "it collapsed to one temperature and adapts to nothing."
            )
    if "ood" in metrics:
        ood = metrics["ood"]["mean"]
        lines.append(
            f"New wordings or subjects: best constant {ood['best_fixed']['reward']:.3f}, head "
            f"{ood['adaptive']:.3f}. {verdict(ood['gain_over_best_fixed'])}"
        )
    return lines


def verdict(gain: dict[str, Any]) -> str:
    """Says in one sentence if the head won against the best constant temperature.

    `gain` is the difference of their mean rewards, with its 95% interval.

    >>> verdict({"estimate": -0.02, "ci95": [-0.03, -0.01]})
    'The head lost: it got 0.020 less reward than the best constant temperature
    (95% interval of the difference: -0.030 to -0.010).'
    """
    estimate, (low, high) = gain["estimate"], gain["ci95"]
    compared = f"it got {abs(estimate):.3f} {'less' if estimate < 0 else 'more'} reward"
    compared += " than the best constant temperature"
    bounds = f"(95% interval of the difference: {interval(gain['ci95'], '+')})"
    if low > 0 or high < 0:
        return f"The head {'won' if low > 0 else 'lost'}: {compared} {bounds}."
    undecided = "It is undecided whether the head is better"
    return f"{undecided}: {compared}, but the interval includes 0 {bounds}."


def _difference(difference: dict[str, Any]) -> str:
    return f"{decimal(difference['estimate'], '+')} ({interval(difference['ci95'], '+')})"


def _gap_closed(mean: dict[str, Any]) -> str:
    """Says how far the head goes from the best constant to the best per task, if there is a gap."""
    closed, bounds = mean["gap_closed"], mean["gap_closed_ci95"]
    if closed is None:
        return "The best per task isn't above the best constant: there is no gap to close."
    said = f"The head closes {closed:.0%} of the gap to the best per task"
    if bounds is None:
        return f"{said}, which may be 0: no interval for that."
    return f"{said} ({bounds[0]:.0%} to {bounds[1]:.0%})."


def _task_by_task(tasks: dict[str, Any], constant: int) -> str:
    """Says on which tasks the head gets more than the best constant, which is choice `constant`."""
    more: list[str] = []
    less: list[str] = []
    for name, task in tasks.items():
        gain = task["adaptive"] - task["fixed"][constant]
        (more if gain > 0 else less).append(f"{name} ({decimal(gain, '+')})")
    return (
        "Task by task, the head got more than the best constant in "
        f"{', '.join(more) or 'none'}; not more in {', '.join(less) or 'none'}."
    )


# Responses


def example_responses(test: Compared, choices: Temperatures, n_per_task: int = 4) -> str:
    """Writes out responses to the first prompts of each task, with their rewards.

    One is by the head, one at the coldest and one at the warmest of the `choices`.
    """
    made, lines = test.adaptive.decisions, []
    for name in dict.fromkeys(test.names.tolist()):
        for p in (test.names == name).nonzero()[0][:n_per_task].tolist():
            row = p * test.adaptive.n_samples  # the first of the head's responses
            ids = made.choice_ids[row][made.mask[row]]
            chosen = f"{choices.table[ids].mean():.2g} on average"
            if len(ids) == 1:
                chosen = choices.names[int(ids)]
            written = [(f"head, t={chosen}", test.adaptive_samples[p, 0], test.adaptive, row)]
            for k in (0, len(choices) - 1):
                row = p * test.fixed.n_samples + test.places[k, 0]
                reward = test.fixed_samples[p, k, 0]
                written.append((f"fixed t={choices.names[k]}", reward, test.fixed, row))
            lines.append(f"[{name}] {test.prompts[p].text}")
            for who, reward, rollout, row in written:
                lines.append(f"  {who}, reward {reward:.2f}: {rollout.responses[row]}")
            lines.append("")
    return "\n".join(map(printable, lines))


def strips_of(rollout: Rollout, names: Sequence[str], lm: GPTLanguageModel) -> list[Strip]:
    """Makes a strip of each of R responses, without the end token.

    `names` are those of all K choices, `lm` wrote the responses.
    """
    T = rollout.token_ids.shape[1]
    is_word = rollout.response_mask & ~torch.isin(rollout.token_ids, torch.tensor(lm.end_ids))
    strips = []
    for row, shown in enumerate(is_word):
        pieces = lm.tokenizer.pieces(rollout.token_ids[row, shown].tolist())
        # At sequence level one choice holds for all tokens.
        choice_ids = rollout.decisions.choice_ids[row].expand(T)[shown].tolist()
        strips.append(Strip(rollout.prompt_of(row), pieces, choice_ids, names))
    return strips


# Figures


def draw_figures(
    metrics: dict[str, Any],
    pretrain_log: Sequence[dict[str, float]],
    lpo_log: Sequence[dict[str, Any]],
) -> list[Picture]:
    """Draws the figures of a run, in the order of `FIGURES`."""
    rewards, choices = _draw_tasks(metrics)
    fig, [[ax]] = plots.figure(1, 1, width=5)
    rates, bounds = list(metrics["win_rate"].values()), list(metrics["win_rate_ci95"].values())
    wins = fig, [plots.win_rates(ax, metrics["choices"], rates, bounds)]
    drawn, pictures = (rewards, wins, choices, _draw_training(pretrain_log, lpo_log)), []
    for name, (fig, sentences) in zip(FIGURES, drawn, strict=True):
        png = plots.png(fig)
        panels = plots.panels(fig, png)
        pictures.append(Picture(f"{name}.png", fig.get_suptitle(), png, panels, sentences))
    return pictures


def figure_files(pictures: Sequence[Picture]) -> dict[str, bytes]:
    """Returns the files of figures by name, with `descriptions.txt`: the sentences on them."""
    texts = ["\n".join([shown.name, *shown.sentences, ""]) for shown in pictures]
    files = {shown.name: shown.png for shown in pictures}
    return {**files, "descriptions.txt": "\n".join(texts).encode()}


def _draw_tasks(metrics: dict[str, Any]) -> list[tuple[Figure, list[str]]]:
    """Draws each task's rewards by temperature, and the temperatures that the head chose."""
    tasks, names = metrics["tasks"], metrics["choices"]
    (rewards, above), (shares, below) = plots.grid(len(tasks)), plots.grid(len(tasks))
    best, on_rewards, on_shares = set(), [], []
    for upper, lower, (name, task) in zip(above, below, tasks.items(), strict=True):
        fixed, chosen, head = task["fixed"], task["chosen_temperature"], task["adaptive"]
        best.add(fixed.index(max(fixed)))
        given = metrics["temperatures"], fixed, chosen, head
        if have_rules(names):
            on_rewards.append(plots.reward_by_temperature(upper, name, *given, names))
        else:
            on_rewards.append(plots.reward_by_temperature(upper, name, *given))
            plots.legend(upper)
        on_shares.append(plots.choice_histogram(lower, name, names, task["histogram"], chosen))
    rewards.suptitle(f"{'One' if len(best) == 1 else 'No single'} temperature serves every task")
    shares.suptitle("Temperatures that the head chooses, task by task")
    return [(rewards, on_rewards), (shares, on_shares)]


def _draw_training(
    pretrain_log: Sequence[dict[str, float]], lpo_log: Sequence[dict[str, Any]]
) -> tuple[Figure, list[str]]:
    def column(log: Sequence[dict[str, Any]], key: str) -> list[Any]:
        return [entry[key] for entry in log]

    fig, [loss, margin, entropy, reward] = plots.grid(4)
    held_out = column(pretrain_log, "held_out_loss")
    lines = {"training": column(pretrain_log, "loss"), "held-out": held_out}
    title = f"Held-out loss: best {min(held_out):.2f}"
    names = "pretraining step", "loss (nats per token)", title
    sentences = [plots.curve(loss, column(pretrain_log, "step"), lines, *names)]

    epochs = [epoch for entry in lpo_log for epoch in entry["epochs"]]
    count = [i + 1 for i in range(len(epochs))]
    breaks = [i + 0.5 for i in count[:-1] if i % len(lpo_log[0]["epochs"]) == 0]
    for ax, key in ((margin, "margin"), (entropy, "entropy")):
        nats, name = column(epochs, key), f"{key} (nats)"
        title = f"{key.capitalize()}: {nats[0]:.2f} to {nats[-1]:.2f}"
        sentences.append(plots.curve(ax, count, {key: nats}, "LPO epoch", name, title, breaks))
    for ax in (loss, entropy):
        ax.set_ylim(bottom=0)

    rounds, held_out = column(lpo_log, "round"), column(lpo_log, "validation_reward")
    lines = {"sampled": column(lpo_log, "sampled_reward"), "held-out, greedy": held_out}
    names = "LPO round", "mean reward", f"Held-out reward: best {max(held_out):.3f}"
    sentences.append(plots.curve(reward, rounds, lines, *names))
    reward.set_xticks(rounds)
    fig.suptitle("How the training went")
    return fig, sentences

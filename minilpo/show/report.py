"""The results of a run as a person reads them: table, sentences, figures and a few responses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.rollout import Rollout
from minilpo.evaluation.measure import Compared
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.machine.text import printable
from minilpo.setting import have_rules
from minilpo.show import plots
from minilpo.show.strip import Strip

CAPTIONS = {
    "reward_by_temperature.png": "Mean reward at each fixed temperature, task by task. "
    "Orange is the head; a star stands at the mean of the temperatures that it chose.",
    "win_rate.png": "How often the head's response to a prompt got more reward than one written "
    "at a fixed temperature; a tie counts half. Whiskers are 95% intervals over prompts.",
    "chosen_temperatures.png": "How often the head chose each temperature, task by task.",
    "training.png": "How the training went: the language model's loss; how far the head's scores "
    "of better and worse responses are apart; how undecided the head is; the rewards.",
}


class Picture(NamedTuple):
    """A figure in the forms in which it is shown."""

    name: str  # of its file
    title: str  # what it finds, if it has several panels
    png: bytes
    panels: list[bytes]  # each panel alone, for narrow pages
    sentences: list[str]  # on each panel
    caption: str  # how to read it


def result_table(metrics: dict[str, Any]) -> str:
    """Writes mean rewards as plain text, a line per task, and the conclusions below."""
    return "\n".join([*_reward_lines(metrics), "", *conclusions(metrics)])


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
    if "controls" in metrics:
        controls = metrics["controls"]
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
        if "two_temperatures" in task:
            rule = task["two_temperatures"]
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
    compared = f"{abs(estimate):.3f} {'less' if estimate < 0 else 'more'} reward"
    compared += " than the best constant temperature"
    interval = f"(95% interval of the difference: {low:+.3f} to {high:+.3f})"
    if low > 0 or high < 0:
        return f"The head {'won' if low > 0 else 'lost'}: it got {compared} {interval}."
    return (
        f"It is undecided whether the head is better: it got {compared}, "
        f"but the interval includes 0 {interval}."
    )


def _difference(difference: dict[str, Any]) -> str:
    low, high = difference["ci95"]
    return f"{difference['estimate']:+.3f} ({low:+.3f} to {high:+.3f})"


def _gap_closed(mean: dict[str, Any]) -> str:
    """Says how far the head goes from the best constant to the best per task, if there is a gap."""
    closed, interval = mean["gap_closed"], mean["gap_closed_ci95"]
    if closed is None:
        return "The best per task isn't above the best constant: there is no gap to close."
    if interval is None:
        return (
            f"The head closes {closed:.0%} of the gap to the best per task, which may be 0: "
            "no interval for that."
        )
    low, high = interval
    return (
        f"The head closes {closed:.0%} of the gap to the best per task ({low:.0%} to {high:.0%})."
    )


def _task_by_task(tasks: dict[str, Any], constant: int) -> str:
    """Says on which tasks the head gets more than the best constant, which is choice `constant`."""
    more: list[str] = []
    less: list[str] = []
    for name, task in tasks.items():
        gain = task["adaptive"] - task["fixed"][constant]
        (more if gain > 0 else less).append(f"{name} ({gain:+.3f})")
    return (
        "Task by task, the head got more than the best constant in "
        f"{', '.join(more) or 'none'}; not more in {', '.join(less) or 'none'}."
    )


def _reward_lines(metrics: dict[str, Any]) -> list[str]:
    """Writes the table itself: a line for each task, and one for their mean."""
    width = max(len(name) for name in [*metrics["tasks"], "mean reward"]) + 2
    # The parts of a name stand in several lines, its last in the lowest.
    heads = [f"t={name}".split(", ") for name in metrics["choices"]]
    widths = [max(7, *(len(part) + 2 for part in head)) for head in heads]
    n_lines = max(map(len, heads))
    padded = [[""] * (n_lines - len(head)) + head for head in heads]
    lines = []
    for parts in zip(*padded, strict=True):
        header = "".join(f"{part:>{w}}" for part, w in zip(parts, widths, strict=True))
        lines.append(f"{'':<{width}}{header}".rstrip())
    lines[-1] = f"{'mean reward':<{width}}{header}{'head':>8}{'best per task':>15}{'chosen t':>10}"
    for name, task in [*metrics["tasks"].items(), ("mean", metrics["mean"])]:
        fixed = "".join(f"{r:{w}.3f}" for r, w in zip(task["fixed"], widths, strict=True))
        chosen = f"{task['chosen_temperature']:10.2f}" if "chosen_temperature" in task else ""
        numbers = f"{fixed}{task['adaptive']:8.3f}{task['best_per_task']:15.3f}{chosen}"
        lines.append(f"{name:<{width}}{numbers}")
    return lines


def example_responses(test: Compared, choices: Temperatures, n_per_task: int = 4) -> str:
    """Writes out responses to the first prompts of each task, with their rewards.

    One is by the head, one at the coldest and one at the warmest of the `choices`.
    """
    K, made = len(choices), test.adaptive.decisions
    lines = []
    for name in dict.fromkeys(test.names.tolist()):
        for p in (test.names == name).nonzero()[0][:n_per_task].tolist():
            row = p * test.adaptive.n_samples  # the first of the head's responses
            ids = made.choice_ids[row][made.mask[row]]
            chosen = f"{choices.table[ids].mean():.2g} on average"
            if len(ids) == 1:
                chosen = choices.names[int(ids)]
            wrote = f"head, t={chosen}, reward {test.adaptive_samples[p, 0]:.2f}"
            lines += [
                f"[{name}] {test.prompts[p].text}",
                f"  {wrote}: {test.adaptive.responses[row]}",
            ]
            for k in (0, K - 1):
                wrote = f"fixed t={choices.names[k]}, reward {test.fixed_samples[p, k, 0]:.2f}"
                response = test.fixed.responses[p * test.fixed.n_samples + test.places[k, 0]]
                lines.append(f"  {wrote}: {response}")
            lines.append("")
    return "\n".join(map(printable, lines))


def strips_of(rollout: Rollout, names: Sequence[str], lm: GPTLanguageModel) -> list[Strip]:
    """Makes a strip of every response of a rollout, without the end token.

    Args:
        rollout: R responses.
        names: of all K choices.
        lm: the language model that wrote the responses.

    Returns:
        R strips.
    """
    T = rollout.token_ids.shape[1]
    strips = []
    for row in range(len(rollout.responses)):
        length = int(rollout.response_mask[row].sum())
        token_ids = rollout.token_ids[row, :length]
        # At sequence level one choice holds for all tokens.
        choice_ids = rollout.decisions.choice_ids[row].expand(T)[:length]
        is_word = ~torch.isin(token_ids, torch.tensor(lm.end_ids))
        pieces = lm.tokenizer.pieces(token_ids[is_word].tolist())
        strips.append(Strip(rollout.prompt_of(row), pieces, choice_ids[is_word].tolist(), names))
    return strips


def draw_figures(
    metrics: dict[str, Any], pretrain_log: list[dict[str, float]], lpo_log: list[dict[str, Any]]
) -> list[Picture]:
    """Draws the figures of a run."""
    drawn = (  # in the order of `CAPTIONS`
        _draw_rewards(metrics),
        _draw_win_rates(metrics),
        _draw_choices(metrics),
        _draw_training(pretrain_log, lpo_log),
    )
    pictures = []
    for (name, caption), (fig, sentences) in zip(CAPTIONS.items(), drawn, strict=True):
        png = plots.png(fig)
        panels = plots.panels(fig, png)
        pictures.append(Picture(name, fig.get_suptitle(), png, panels, sentences, caption))
    return pictures


def figure_files(pictures: Sequence[Picture]) -> dict[str, bytes]:
    """Returns the files of figures by name, with `descriptions.txt`: the sentences on them."""
    texts = ["\n".join([shown.name, *shown.sentences]) for shown in pictures]
    descriptions = ("\n\n".join(texts) + "\n").encode()
    return {**{shown.name: shown.png for shown in pictures}, "descriptions.txt": descriptions}


def _draw_rewards(metrics: dict[str, Any]) -> tuple[Figure, list[str]]:
    temperatures, names, tasks = metrics["temperatures"], metrics["choices"], metrics["tasks"]
    on_an_axis = not have_rules(names)  # else a temperature may be there twice
    fig, axes = plots.grid(len(tasks))
    sentences, best = [], set()
    for ax, (name, task) in zip(axes, tasks.items(), strict=True):
        chosen, fixed, reward = task["chosen_temperature"], task["fixed"], task["adaptive"]
        if on_an_axis:
            said = plots.reward_by_temperature(ax, name, temperatures, fixed, chosen, reward)
            plots.legend(ax)
        else:
            said = plots.reward_by_name(ax, name, names, fixed, reward)
        sentences.append(said)
        best.add(fixed.index(max(fixed)))
    which = "No single" if len(best) > 1 else "One"
    fig.suptitle(f"{which} temperature serves every task")
    return fig, sentences


def _draw_win_rates(metrics: dict[str, Any]) -> tuple[Figure, list[str]]:
    fig, [[ax]] = plots.figure(1, 1, width=5)
    rates, intervals = list(metrics["win_rate"].values()), list(metrics["win_rate_ci95"].values())
    return fig, [plots.win_rates(ax, metrics["choices"], rates, intervals)]


def _draw_choices(metrics: dict[str, Any]) -> tuple[Figure, list[str]]:
    tasks = metrics["tasks"]
    fig, axes = plots.grid(len(tasks))
    sentences = []
    for ax, (name, task) in zip(axes, tasks.items(), strict=True):
        shares, chosen = task["histogram"], task["chosen_temperature"]
        sentences.append(plots.choice_histogram(ax, name, metrics["choices"], shares, chosen))
    fig.suptitle("Temperatures that the head chooses, task by task")
    return fig, sentences


def _draw_training(
    pretrain_log: list[dict[str, float]], lpo_log: list[dict[str, Any]]
) -> tuple[Figure, list[str]]:
    fig, [loss, margin, entropy, reward] = plots.grid(4)
    steps, held_out = _column(pretrain_log, "step"), _column(pretrain_log, "held_out_loss")
    lines = {"training": _column(pretrain_log, "loss"), "held-out": held_out}
    title = f"Held-out loss: best {min(held_out):.2f}"
    names = "pretraining step", "loss (nats per token)", title
    sentences = [plots.curve(loss, steps, lines, *names)]

    epochs = [epoch for entry in lpo_log for epoch in entry["epochs"]]
    count = [i + 1 for i in range(len(epochs))]
    breaks = [i + 0.5 for i in count[:-1] if i % len(lpo_log[0]["epochs"]) == 0]
    for ax, key in ((margin, "margin"), (entropy, "entropy")):
        nats, name = _column(epochs, key), f"{key} (nats)"
        title = f"{key.capitalize()}: {nats[0]:.2f} to {nats[-1]:.2f}"
        sentences.append(plots.curve(ax, count, {key: nats}, "LPO epoch", name, title, breaks))
    for ax in (loss, entropy):
        ax.set_ylim(bottom=0)

    rounds, held_out = _column(lpo_log, "round"), _column(lpo_log, "validation_reward")
    lines = {"sampled": _column(lpo_log, "sampled_reward"), "held-out, greedy": held_out}
    names = "LPO round", "mean reward", f"Held-out reward: best {max(held_out):.3f}"
    sentences.append(plots.curve(reward, rounds, lines, *names))
    reward.set_xticks(rounds)
    fig.suptitle("How the training went")
    return fig, sentences


def _column(log: Sequence[dict[str, Any]], key: str) -> list[Any]:
    return [entry[key] for entry in log]

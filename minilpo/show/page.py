"""`report.html`: all of a run on one page, for reading, printing and handing on.

Every conclusion on it is made from the run's numbers. The same run gives the same bytes, but for
the paragraph of times.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from minilpo import __version__
from minilpo.config import RunConfig
from minilpo.evaluation.measure import Compared
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.show.document import (
    Html,
    contents,
    document,
    element,
    escaped,
    joined,
    listed,
    pictures,
    table,
)
from minilpo.show.report import Picture, conclusions, strips_of
from minilpo.show.strip import Strip, html_legend, html_words

NAME = "report.html"
FIRST = 3  # responses near the top
SHOWN = 30  # responses further down, half of them good ones, half bad ones
SECTIONS = {
    "model": "The language model",
    "pretrain": "Pretraining",
    "lpo": "LPO",
    "evaluation": "Evaluation",
}
MEASURED = {  # settings without a flag of their own name
    "vocab_size": "words and marks that the tokenizer knows, found in the demonstrations",
    "threads": "how many threads computed; the last digits of every number depend on it",
    "digests": "SHA-256 of the tokenizer and of task files",
}
LEARNED = {  # by the names of `LPOConfig.rule`: the rule's name, and what the head learned by it
    "lpo": (
        "Latent Preference Optimization (LPO)",
        "prefer the temperatures of a prompt's better responses to those of worse ones",
    ),
    "reinforce": (
        "REINFORCE",
        "choose temperatures more often whose reward was above the prompt's mean",
    ),
    "grpo": (
        "GRPO (Group Relative Policy Optimization)",
        "choose temperatures more often whose reward was above the prompt's mean, within a limit",
    ),
    "regression": ("predicting rewards", "predict each temperature's reward and take the highest"),
}


class Shown(NamedTuple):
    """A response on the page."""

    task: str
    reward: float
    strip: Strip


@dataclass(frozen=True)
class Results:
    """The parts of a run that its page shows."""

    config: RunConfig
    metrics: dict[str, Any]  # as in metrics.json
    pretrain_log: list[dict[str, float]]
    lpo_log: list[dict[str, Any]]
    pictures: list[Picture]
    first: list[Shown]  # responses of the head: to the first prompts, then good and bad ones
    best: list[Shown]
    worst: list[Shown]


def run_page(run: Results) -> str:
    """Makes the page of a run: the verdict, curves, three responses, the table, then the rest."""
    metrics, [said, *others] = run.metrics, conclusions(run.metrics)
    rewards, *more = [
        (picture.title, pictures(picture.panels, picture.sentences, picture.caption))
        for picture in run.pictures
    ] or [("", Html())]
    caption = (
        "Mean reward on test prompts: at each fixed temperature (the best is bold), with the head, "
        "with constants chosen on training prompts for each task and for each kind of prompt, at "
        "random, and with a head that sees nothing; last, the mean temperature that the head chose."
    )
    chapters = {
        "How it was done": _steps(run),
        "Kinds of prompts": _kinds(metrics),
        "More figures": joined([part for _, part in more]),
        "Good and bad responses": _good_and_bad(run),
        "New wordings and subjects": _elsewhere(metrics),
        "All settings": settings(run.config),
    }
    return document(
        f"Which temperature for which prompt: a run of minilpo, seed {run.config.seed}",
        element("p", said, class_="verdict"),
        element("h2", rewards[0] or "Mean rewards"),
        rewards[1],
        element("h2", "Three responses"),
        element("p", "The head's first responses to the first test prompts, task by task."),
        html_legend(metrics["choices"]),
        _list_of_responses(run.first),
        element("h2", "What came out"),
        _reward_table(metrics, caption),
        listed(others),
        contents({heading: content for heading, content in chapters.items() if content}),
        colophon(),
    )


def colophon() -> Html:
    """Names the program that made the page, and the paper that its method is from."""
    words = (
        f"Made by minilpo {__version__}, an independent implementation of Latent Preference "
        "Optimization: Dhuliawala et al., Adaptive Decoding via Latent Preference "
        "Optimization, arXiv 2411.09661."
    )
    return element("footer", element("p", words, class_="quiet"))


# Which responses


def chosen_responses(
    test: Compared, lm: GPTLanguageModel, choice_names: Sequence[str]
) -> tuple[list[Shown], list[Shown], list[Shown]]:
    """Picks among the head's first responses to test prompts: first, good and bad ones."""
    names, rewards = test.names.tolist(), test.adaptive_samples[:, 0].tolist()

    def shown(rows: list[int]) -> list[Shown]:
        first = torch.tensor(rows, dtype=torch.long) * test.adaptive.n_samples
        strips = strips_of(test.adaptive.rows(first), choice_names, lm)
        pairs = zip(rows, strips, strict=True)
        return [Shown(names[row], rewards[row], strip) for row, strip in pairs]

    best, worst = best_and_worst(names, rewards, SHOWN)
    first = in_turn(names, range(len(names)))[:FIRST]
    return shown(first), shown(best), shown(worst)


def in_turn(names: Sequence[str], rows: Sequence[int]) -> list[int]:
    """Orders rows so that their tasks take turns. `names` has the task of every row.

    >>> in_turn(["a", "a", "a", "b"], [2, 1, 0, 3])
    [2, 3, 1, 0]
    """
    by_task: dict[str, list[int]] = {name: [] for name in names}
    for row in rows:
        by_task[names[row]].append(row)
    rounds = itertools.zip_longest(*by_task.values())
    return [row for one_each in rounds for row in one_each if row is not None]


def best_and_worst(
    names: Sequence[str], rewards: Sequence[float], n: int
) -> tuple[list[int], list[int]]:
    """Picks n // 2 rows with high rewards and as many with low ones; the tasks take turns.

    >>> best_and_worst(["a", "a", "b", "b"], [0.1, 0.9, 0.2, 0.3], n=4)
    ([1, 3], [0, 2])
    """
    rows, half = range(len(names)), min(n, len(names)) // 2
    best = in_turn(names, sorted(rows, key=lambda row: -rewards[row]))[:half]
    others = [row for row in rows if row not in best]
    return best, in_turn(names, sorted(others, key=lambda row: rewards[row]))[:half]


# The chapters


def _steps(run: Results) -> Html:
    parts = []
    for heading, words in (_pretraining(run), _training(run), _evaluation(run)):
        parts.append(element("li", element("b", heading), " ", words))
    words = (
        "A language model draws each word from a distribution, and the temperature says how "
        "boldly: at 0 it always takes the most likely word. A small network on top of the model, "
        "the head, learned which temperature to use."
    )
    seconds = run.metrics["seconds"]
    # Nothing else on the page differs when the same run is made again.
    times = (
        f"It took {seconds['total']:.0f} seconds: {seconds['pretrain']:.0f} for pretraining, "
        f"{seconds['rollout']:.0f} for LPO's responses, {seconds['lpo']:.0f} for fitting the head "
        f"to them, {seconds['evaluate']:.0f} for the evaluation."
    )
    times_part = element("p", times, id="times", class_="quiet")
    return joined([element("p", words), element("ol", *parts), times_part])


def _pretraining(run: Results) -> tuple[str, str]:
    model, config = run.config.model, run.config.pretrain
    first, last = run.pretrain_log[0], run.pretrain_log[-1]
    return (
        "A language model was trained from nothing.",
        f"A transformer of {_counted(model.n_layer, 'block')} with about {model.n_parameters:,} "
        f"parameters learned to imitate {config.demonstrations:,} demonstrations of the tasks "
        f"{', '.join(run.metrics['tasks'])}, in {config.steps:,} steps of {config.batch_size}. Its "
        f"loss on other demonstrations went from {first['held_out_loss']:.2f} nats per token after "
        f"{first['step']:,} steps to {last['held_out_loss']:.2f} after {last['step']:,}; lower is "
        "better.",
    )


def _training(run: Results) -> tuple[str, str]:
    config, log = run.config.lpo, run.lpo_log
    n_tasks = len(run.metrics["tasks"])
    prompts = n_tasks * -(-config.prompts // n_tasks)  # as many of each task, rounded up
    rewards = [entry["validation_reward"] for entry in log]
    when = "once per response" if run.config.level == "sequence" else "before every word"
    pairs, without = (sum(entry[key] for entry in log) for key in ("pairs", "dropped_prompts"))
    rule, learned = LEARNED[config.rule]
    settings, counted = f"rule {config.rule}, loss {config.loss}", ""
    if config.rule == "lpo":
        settings = f"pairs {config.pairs}, loss {config.loss}"
        counted = f"There were {pairs:,} pairs in all; {without:,} prompts gave none. "
    elif config.rule != "regression":
        counted = f"Nothing was learned from {without:,} prompts with equal rewards. "
    also = " The language model was trained too, by the same loss." if config.train_lm else ""
    return (
        f"The head was trained by {rule}.",
        f"It decides {when}. In each of {_counted(config.rounds, 'round')} the model wrote "
        f"{config.samples} responses to each of {prompts:,} prompts, at temperatures drawn "
        f"from the head, and each got a reward from 0 to 1. The head learned to {learned} "
        f"({settings}). {counted}After each round the mean reward on held-out prompts was "
        f"{', '.join(f'{reward:.3f}' for reward in rewards)}; the head of round "
        f"{1 + rewards.index(max(rewards))} was kept.{also}",
    )


def _evaluation(run: Results) -> tuple[str, str]:
    measured = run.config.evaluation
    return (
        "The head was compared with fixed temperatures",
        f"on {measured.test_prompts:,} test prompts per task, which training never saw. Each got "
        f"{_counted(measured.samples_per_prompt, 'response')} by the head, and as many at each of "
        f"{len(run.config.temperatures)} fixed temperatures (one at 0, where all are the same). "
        f"Constants were chosen on {measured.selection_prompts:,} training prompts per task: the "
        "best constant is one temperature for all prompts, the best per task is one for each task, "
        "the best per kind one for each kind of prompt. Every task counts the same. Intervals are "
        f"from {measured.resamples:,} resamples of the test prompts; another seed varies more.",
    )


def _reward_table(metrics: dict[str, Any], caption: str) -> Html:
    columns = {**metrics["tasks"], "mean": metrics["mean"]}
    rows = []
    for k, name in enumerate(metrics["choices"]):
        row: list[str] = [f"t={name}"]
        for column in columns.values():
            text, best = f"{column['fixed'][k]:.3f}", max(column["fixed"])
            row.append(element("b", text) if column["fixed"][k] == best else text)
        rows.append(row)
    rows.append(["head", *[f"{column['adaptive']:.3f}" for column in columns.values()]])
    intervals = [column.get("adaptive_ci95") for column in columns.values()]
    rows.append(["its 95% interval", *map(_interval, intervals)])
    for best in ("best_per_task", "best_per_kind"):
        rewards = [f"{column[best]:.3f}" for column in columns.values()]
        rows.append([best.replace("_", " "), *rewards])
    for who, key in (("at random", "random_head"), ("sees nothing", "learned_constant")):
        if control := metrics.get("controls", {}).get(key):
            rewards = [*control["tasks"].values(), control["reward"]]
            rows.append([who, *[f"{reward:.3f}" for reward in rewards]])
    chosen = [column.get("chosen_temperature") for column in columns.values()]
    rows.append(["chosen t", *["" if t is None else f"{t:.2f}" for t in chosen]])
    return table(caption, ["temperature", *map(_breakable, columns)], rows)


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""  # one prompt has none


def _breakable(name: str) -> Html:
    """Lets a name break at its underscores, where there is little room."""
    return Html(escaped(name).replace("_", "_<wbr>"))


def _kinds(metrics: dict[str, Any]) -> Html:
    parts = []
    for name, task in metrics["tasks"].items():
        rows = []
        for kind, found in task.get("kinds", {}).items():
            numbers = f"{found['adaptive']:.3f}", _interval(found["ci95"])
            chosen = f"{found['chosen_temperature']:.2f}"
            rows.append([kind, str(found["prompts"]), *numbers, chosen])
        if rows:
            heads = ["kind", "prompts", "head", "95% interval", "chosen t"]
            parts.append(table(f"{name}: does the head tell its kinds apart?", heads, rows))
    words = (
        "Intervals are Wilson's where every reward is 0 or 1, each prompt counting once, else from "
        "resampled prompts: of few prompts those are rather too narrow."
    )
    return joined([*parts, element("p", words, class_="quiet")] if parts else [])


def _good_and_bad(run: Results) -> Html:
    rule = (
        "The head's first responses to test prompts, sorted by reward; the tasks take turns. So "
        "the good ones are as good, and the bad ones as bad, as they come."
    )
    parts = [element("p", rule)]
    for which, responses in (("best", run.best), ("worst", run.worst)):
        parts.append(element("h3", f"{len(responses)} of the {which}"))
        parts.append(_list_of_responses(responses))
    return joined(parts)


def _list_of_responses(responses: Sequence[Shown]) -> Html:
    items = []
    for shown in responses:
        about = element("p", f"{shown.task}, reward {shown.reward:.2f}", class_="quiet")
        prompt = element("p", element("b", shown.strip.prompt))
        wrote = html_words(shown.strip) if shown.strip.pieces else element("p", "(no word)")
        items.append(element("li", about, prompt, wrote, class_="response"))
    return element("ol", joined(items), class_="responses")


def _elsewhere(metrics: dict[str, Any]) -> Html | None:
    if "ood" not in metrics:
        return None
    caption = "Mean reward on prompts whose wording or subject never occurs in training."
    return _reward_table(metrics["ood"], caption)


def settings(config: RunConfig) -> Html:
    """Makes a table of every section of the settings: flag, value and meaning."""
    general = [field for field in dataclasses.fields(config) if field.name not in SECTIONS]
    tables = [_settings_table("The run", config, general)]
    for name, heading in SECTIONS.items():
        section = getattr(config, name)
        tables.append(_settings_table(heading, section, dataclasses.fields(section)))
    return joined(tables)


def _settings_table(caption: str, section: Any, fields: Sequence[dataclasses.Field]) -> Html:
    rows = []
    for field in fields:
        name: str = field.name
        meaning = field.metadata.get("help") or MEASURED[name]
        if "help" in field.metadata:
            name = element("code", f"--{name.replace('_', '-')}")
        rows.append([name, _as_text(getattr(section, field.name)), meaning])
    return table(caption, ["setting", "value", "meaning"], rows, class_="plain settings")


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(_as_text, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _counted(n: int, noun: str) -> str:
    """Counts things.

    >>> _counted(1, "task"), _counted(2, "task")
    ('1 task', '2 tasks')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"

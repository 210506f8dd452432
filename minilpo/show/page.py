"""`report.html`: all of a run on one page, for reading, printing and handing on.

`report.html` in this folder is its template. Every number and sentence comes from the run. The same
run gives the same bytes, but for the paragraph of times.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch

from minilpo.config import SECTIONS, RunConfig
from minilpo.evaluation.measure import Compared
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.show.document import FOLDER, Html, document, fill, pictures, table
from minilpo.show.report import Picture, conclusions, interval, reward_rows, strips_of
from minilpo.show.strip import Strip, html_legend, html_words

NAME = "report.html"
FIRST = 3  # responses near the top
SHOWN = 30  # responses further down, half of them good ones, half bad ones
MEASURED = {  # settings without a flag of their own name
    "vocab_size": "words and marks that the tokenizer knows, found in the demonstrations",
    "threads": "how many threads computed; the last digits of every number depend on it",
    "digests": "SHA-256 of the tokenizer and of task files",
}
LEARNED = {  # by the names of `LPOConfig.rule`
    "lpo": "prefer the temperatures of a prompt's better responses to those of worse ones "
    "(Latent Preference Optimization)",
    "reinforce": "choose temperatures more often that got more than the prompt's mean (REINFORCE)",
    "grpo": "do so within a limit (Group Relative Policy Optimization)",
    "regression": "predict each temperature's reward, of which the highest is taken",
}
Shown = tuple[str, float, Strip]  # a response on the page: its task, its reward, its words


def run_page(
    config: RunConfig,
    metrics: dict[str, Any],
    pretrain_log: Sequence[dict[str, float]],
    lpo_log: Sequence[dict[str, Any]],
    figures: Sequence[Picture],
    responses: Sequence[Sequence[Shown]],
) -> str:
    """Makes the page of a run: the verdict, curves, three responses, the table, then the rest.

    `metrics` are as in metrics.json, `figures` from `draw_figures`, `responses` from
    `chosen_responses`.
    """
    said, *others = conclusions(metrics)
    elsewhere = fill("<p>No task of this run has other prompts than those of its training.</p>")
    if "ood" in metrics:
        elsewhere = _reward_table(metrics["ood"], "Mean reward on such prompts.")
    body = fill(
        (FOLDER / NAME).read_text("utf-8"),
        config=config,
        metrics=metrics,
        verdict=said,
        conclusions=[fill("<li>{}</li>\n", line) for line in others],
        title=figures[0].title,
        figures=[pictures(drawn.panels, drawn.sentences) for drawn in figures],
        legend=html_legend(metrics["choices"]),
        responses=[_list_of_responses(part) for part in responses],
        table=_reward_table(metrics, "Mean reward on test prompts."),
        kinds=_kinds(metrics["tasks"]),
        elsewhere=elsewhere,
        all_settings=settings(config),
        tasks=", ".join(metrics["tasks"]),
        first=pretrain_log[0],
        last=pretrain_log[-1],
        **_training(config, lpo_log, len(metrics["tasks"])),
    )
    title = f"Which temperature for which prompt: a run of minilpo, seed {config.seed}"
    return document(title, body)


# Which responses


def chosen_responses(
    test: Compared, lm: GPTLanguageModel, choice_names: Sequence[str]
) -> list[list[Shown]]:
    """Picks among the head's first responses to test prompts: first, good and bad ones."""
    names, rewards = test.names.tolist(), test.adaptive_samples[:, 0].tolist()
    parts = in_turn(names, range(len(names)))[:FIRST], *best_and_worst(names, rewards, SHOWN)
    shown = []
    for rows in parts:
        first = torch.tensor(rows, dtype=torch.long) * test.adaptive.n_samples
        strips = strips_of(test.adaptive.rows(first), choice_names, lm)
        pairs = zip(rows, strips, strict=True)
        shown.append([(names[row], rewards[row], strip) for row, strip in pairs])
    return shown


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


# Parts of the page


def _training(config: RunConfig, log: Sequence[dict[str, Any]], n_tasks: int) -> dict[str, Any]:
    """Returns the template's values on the head's training, by name."""
    rewards = [entry["validation_reward"] for entry in log]
    pairs, without = (sum(entry[key] for entry in log) for key in ("pairs", "dropped_prompts"))
    of_rule = {"lpo": f"There were {pairs:,} pairs in all; {without:,} prompts gave none."}
    if config.lpo.rule in ("reinforce", "grpo"):
        of_rule = {config.lpo.rule: f"{without:,} prompts with equal rewards taught it nothing."}
    also = "The language model was trained too, by the same loss."
    return {
        "learned": LEARNED[config.lpo.rule],
        "counted": of_rule.get(config.lpo.rule, ""),
        "when": "once per response" if config.level == "sequence" else "before every word",
        "prompts": n_tasks * -(-config.lpo.prompts // n_tasks),  # as many of each, rounded up
        "rewards": ", ".join(f"{reward:.3f}" for reward in rewards),
        "kept": 1 + rewards.index(max(rewards)),
        "also": also if config.lpo.train_lm else "",
    }


def _reward_table(metrics: dict[str, Any], caption: str) -> Html:
    rows = reward_rows(metrics)
    for place, column in enumerate([*metrics["tasks"].values(), metrics["mean"]]):
        best = rows[f"t={metrics['choices'][column['fixed'].index(max(column['fixed']))]}"]
        best[place] = fill("<b>{}</b>", best[place])
    # A name may break at its underscores, where there is little room.
    heads = [Html(fill("{}", name).replace("_", "_<wbr>")) for name in [*metrics["tasks"], "mean"]]
    return table(caption, ["temperature", *heads], [[name, *cells] for name, cells in rows.items()])


def _kinds(tasks: dict[str, Any]) -> Html:
    tables = []
    for name, task in tasks.items():
        rows = []
        for kind, found in task.get("kinds", {}).items():
            numbers = f"{found['adaptive']:.3f}", interval(found["ci95"])
            rows.append([kind, found["prompts"], *numbers, f"{found['chosen_temperature']:.2f}"])
        if rows:
            heads = ["kind", "prompts", "head", "95% interval", "chosen t"]
            tables.append(table(f"The kinds of {name}.", heads, rows))
    return fill("{}", tables or "No task of this run has kinds of prompts.")


def _list_of_responses(responses: Sequence[Shown]) -> Html:
    items = []
    for task, reward, strip in responses:
        wrote = html_words(strip) if strip.pieces else fill("<p>(no word)</p>")
        item = '<li><p class="quiet">{}, reward {:.2f}</p><p><b>{}</b></p>{}</li>\n'
        items.append(fill(item, task, reward, strip.prompt, wrote))
    return fill('<ol class="responses">\n{}</ol>', items)


def settings(config: RunConfig) -> Html:
    """Makes a table of every section of the settings: flag, value and meaning."""
    tables = []
    for heading in ("the run", *SECTIONS):
        section, rows = getattr(config, heading, config), []
        for field in (f for f in dataclasses.fields(section) if f.name not in SECTIONS):
            value, meaning = getattr(section, field.name), MEASURED.get(field.name)
            name = (
                field.name if meaning else fill("<code>--{}</code>", field.name.replace("_", "-"))
            )
            if isinstance(value, dict):
                value = tuple(map(": ".join, value.items()))
            if isinstance(value, tuple):
                value = ", ".join(map(str, value)) or "none"
            text = f"{value:,}" if type(value) is int else str(value)
            rows.append([name, text, meaning or field.metadata["help"]])
        tables.append(table(heading, ["setting", "value", "meaning"], rows, "plain settings"))
    return fill("{}", tables)

"""`report.html`: all of a run on one page, for reading, printing and handing on.

Every conclusion on it is made from the run's numbers. Apart from the paragraph of times, the same
run gives the same bytes.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from minilpo import __version__
from minilpo.config import RunConfig
from minilpo.evaluation.measure import Compared
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.show import strip
from minilpo.show.document import (
    Html,
    contents,
    document,
    element,
    escaped,
    joined,
    listed,
    picture,
    table,
)
from minilpo.show.report import Picture, conclusions, strips_of, verdict
from minilpo.show.strip import Strip, html_legend, html_words

NAME = "report.html"
SHOWN = 30  # responses, half of them good ones, half bad ones
SECTIONS = {
    "model": "The language model",
    "pretrain": "Pretraining",
    "lpo": "LPO",
    "evaluation": "Evaluation",
}
MEASURED = {  # settings that aren't set by a flag of their own name
    "vocab_size": "words and marks that the tokenizer knows, found in the demonstrations",
    "threads": "how many threads computed; the last digits of every number depend on it",
    "digests": "SHA-256 of the tokenizer and of task files",
}
STYLE = """
.responses { padding-left: 1.9rem; }
.response { margin: 1.5rem 0; }
.response p { margin: 0 0 .2rem; }
"""


class Shown(NamedTuple):
    """A response on the page."""

    task: str
    reward: float
    strip: Strip


@dataclass(frozen=True)
class Results:
    """What a run's page is made from."""

    config: RunConfig
    metrics: dict[str, Any]  # as in metrics.json
    pretrain_log: list[dict[str, float]]
    lpo_log: list[dict[str, Any]]
    pictures: list[Picture]
    best: list[Shown]  # responses of the head
    worst: list[Shown]


def run_page(run: Results) -> str:
    """The page of a run."""
    config, metrics = run.config, run.metrics
    chapters = {
        "What was done": _steps(run),
        "What came out": _outcome(metrics),
        "Where the gain comes from": _controls(metrics),
        "Figures": joined([picture(p.png, " ".join(p.sentences), p.caption) for p in run.pictures]),
        "Good and bad responses": _responses(run),
        "New wordings and subjects": _elsewhere(metrics),
        "All settings": settings(config),
    }
    return document(
        f"Which temperature for which prompt: a run of minilpo, seed {config.seed}",
        element("p", verdict(metrics["mean"]["gain_over_best_fixed"]), class_="verdict"),
        contents({heading: content for heading, content in chapters.items() if content}),
        colophon(),
        style=strip.STYLE + STYLE,
    )


def colophon() -> Html:
    """What made the page, and whose method it is about."""
    words = (
        f"Made by minilpo {__version__}, an independent implementation of Latent Preference "
        "Optimization: Dhuliawala et al., Adaptive Decoding via Latent Preference "
        "Optimization, arXiv 2411.09661."
    )
    return element("footer", element("p", words, class_="quiet"))


# Which responses


def chosen_responses(
    test: Compared, lm: GPTLanguageModel, choice_names: Sequence[str]
) -> tuple[list[Shown], list[Shown]]:
    """Good and bad ones among the head's first responses to test prompts: `best_and_worst`."""
    names, rewards = test.names.tolist(), test.adaptive_samples[:, 0].tolist()

    def shown(rows: list[int]) -> list[Shown]:
        first = torch.tensor(rows, dtype=torch.long) * test.adaptive.n_samples
        responses = test.adaptive.rows(first)
        pairs = zip(rows, strips_of(responses, choice_names, lm), strict=True)
        return [Shown(names[row], rewards[row], words) for row, words in pairs]

    best, worst = best_and_worst(names, rewards, SHOWN)
    return shown(best), shown(worst)


def best_and_worst(
    names: Sequence[str], rewards: Sequence[float], n: int
) -> tuple[list[int], list[int]]:
    """Rows with high and with low rewards, evenly over the tasks: n // 2 each, none twice.

    The rows of every task are sorted by reward, equal ones as they came. Going around the tasks,
    one is taken from the front at a time; then, from the next task on, from the end.

    >>> best_and_worst(["a", "a", "b", "b"], [0.1, 0.9, 0.2, 0.3], n=4)
    ([1, 3], [0, 2])
    """
    queues = {}
    for name in dict.fromkeys(names):
        rows = [row for row in range(len(names)) if names[row] == name]
        queues[name] = deque(sorted(rows, key=lambda row: -rewards[row]))
    turns, half = itertools.cycle(queues.values()), min(n, len(names)) // 2
    return _taken(turns, half, deque.popleft), _taken(turns, half, deque.pop)


def _taken(turns: Iterator[deque[int]], n: int, take: Callable[[deque[int]], int]) -> list[int]:
    rows: list[int] = []
    while len(rows) < n:
        queue = next(turns)
        if queue:  # a task with few responses may have no more
            rows.append(take(queue))
    return rows


# The chapters


def _steps(run: Results) -> Html:
    steps = element("ol", _pretraining(run), _training(run), _evaluation(run))
    return joined([element("p", INTRODUCTION), steps, _times(run.metrics)])


def _step(heading: str, words: str) -> Html:
    return element("li", element("b", heading), " ", words)


INTRODUCTION = (
    "A language model writes word by word, and each word is drawn from a distribution. The "
    "temperature says how boldly: at 0 the most likely word is always taken, at 1 words are drawn "
    "as often as the model believes in them. Here a small network on top of the model, the head, "
    "learns which temperature to use. Three steps made this page."
)


def _pretraining(run: Results) -> Html:
    model, config = run.config.model, run.config.pretrain
    first, last = run.pretrain_log[0], run.pretrain_log[-1]
    tasks = list(run.metrics["tasks"])
    return _step(
        "A language model was trained from nothing.",
        f"A transformer of {_counted(model.n_layer, 'block')} with about {model.n_parameters:,} "
        f"parameters learned to imitate {config.demonstrations:,} demonstrations of "
        f"{_counted(len(tasks), 'task')} ({', '.join(tasks)}), in {config.steps:,} steps of "
        f"{config.batch_size}. Its loss on demonstrations that were kept aside went from "
        f"{first['held_out_loss']:.2f} nats per token after {first['step']:,} steps to "
        f"{last['held_out_loss']:.2f} after {last['step']:,}; lower is better.",
    )


def _training(run: Results) -> Html:
    config, log = run.config.lpo, run.lpo_log
    n_tasks = len(run.metrics["tasks"])
    prompts = n_tasks * -(-config.prompts // n_tasks)  # as many of each task, rounded up
    rewards = [entry["validation_reward"] for entry in log]
    when = "once per response" if run.config.level == "sequence" else "before every word"
    pairs, without = (sum(entry[key] for entry in log) for key in ("pairs", "dropped_prompts"))
    also = " The language model was trained too, by the same loss." if config.train_lm else ""
    if config.rule == "lpo":
        by = "Latent Preference Optimization (LPO)"
        what = (
            f"{_rule(config.pairs)} (rule {config.pairs}, loss {config.loss}): "
            f"{pairs:,} pairs in all; {without:,} prompts gave none, because none of their "
            "responses was better than another by that rule."
        )
    else:
        by, learned = REWARD_RULES[config.rule]
        but = f", but for {without:,} prompts whose responses all scored the same"
        what = (
            f"{learned} All responses to a prompt were learned from (rule {config.rule}, loss "
            f"{config.loss}){'' if config.rule == 'regression' else but}."
        )
    return _step(
        f"The head was trained by {by}.",
        f"It decides {when}. In each of {_counted(config.rounds, 'round')} the model wrote "
        f"{config.samples} responses to each of {prompts:,} prompts, at temperatures drawn "
        "from the head, and a program gave every response a reward from 0 to 1. "
        f"{what} After each round the mean reward on held-out prompts was "
        f"{', '.join(f'{reward:.3f}' for reward in rewards)}; the head of round "
        f"{1 + rewards.index(max(rewards))} was kept.{also}",
    )


REWARD_RULES = {  # by the names of `LPOConfig.rule`: its name, and what the head learned
    "reinforce": (
        "REINFORCE",
        "The head learned to take the temperatures behind more reward than the mean of their "
        "prompt more often, and the others less often.",
    ),
    "grpo": (
        "GRPO (Group Relative Policy Optimization)",
        "The head learned to take the temperatures behind more reward than the mean of their "
        "prompt more often, and the others less often, by a limited factor in each round.",
    ),
    "regression": (
        "predicting rewards",
        "The head learned to predict the reward of each temperature; the one with the highest "
        "prediction is its choice.",
    ),
}


def _rule(pairs: str) -> str:
    if pairs == "nll":
        return "The head learned to imitate the temperatures behind the best response to a prompt"
    which = "The best and the worst response" if pairs == "best_worst" else "Different responses"
    return (
        f"{which} to a prompt made a pair, and the head learned to prefer the temperatures "
        "behind the better one"
    )


def _evaluation(run: Results) -> Html:
    measured, n = run.config.evaluation, len(run.config.temperatures)
    return _step(
        "The head was compared with fixed temperatures",
        f"on {measured.test_prompts:,} test prompts per task, which training never saw: with "
        f"{_counted(measured.samples_per_prompt, 'response')} to each by the head, and as many at "
        f"each of {n} fixed temperatures (at 0 all are the same). The reward of a prompt is their "
        "mean. What a careful user would choose by hand was chosen on "
        f"{measured.selection_prompts:,} training prompts per task: the best constant is one "
        "temperature for all prompts, the best per task is one for each task, the best per kind "
        "one for each kind of prompt. A head may get more than these: it reads each prompt. Every "
        f"task counts the same. Intervals are from {measured.resamples:,} resamples of the test "
        "prompts; another seed varies more.",
    )


def _times(metrics: dict[str, Any]) -> Html:
    """The only place where the page differs when the same run is made again."""
    seconds = metrics["seconds"]
    return element(
        "p",
        f"It took {seconds['total']:.0f} seconds: {seconds['pretrain']:.0f} for pretraining, "
        f"{seconds['rollout']:.0f} for LPO's responses, {seconds['lpo']:.0f} for fitting the head "
        f"to them, {seconds['evaluate']:.0f} for the evaluation.",
        id="times",
        class_="quiet",
    )


def _outcome(metrics: dict[str, Any]) -> Html:
    caption = (
        "Mean reward on test prompts at each fixed temperature (the best is bold), with the head, "
        "and with constants that were chosen on training prompts for each task, and for each kind "
        "of prompt; last, the mean temperature that the head chose."
    )
    parts = [
        _reward_table(metrics, caption),
        element("p", _task_by_task(metrics)),
        listed(conclusions(metrics)),
    ]
    for name, task in metrics["tasks"].items():
        if "kinds" in task:
            parts.append(_kinds(name, task["kinds"]))
    return joined(parts)


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
    rows.append(["its 95% interval", *[_interval(interval) for interval in intervals]])
    for best in ("best_per_task", "best_per_kind"):
        rewards = [f"{column[best]:.3f}" for column in columns.values()]
        rows.append([best.replace("_", " "), *rewards])
    chosen = [column.get("chosen_temperature") for column in columns.values()]
    rows.append(["chosen t", *["" if t is None else f"{t:.2f}" for t in chosen]])
    return table(caption, ["temperature", *map(_breakable, columns)], rows)


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""


def _breakable(name: str) -> Html:
    """A name that may be broken at its underscores, where there is little room."""
    return Html(escaped(name).replace("_", "_<wbr>"))


def _task_by_task(metrics: dict[str, Any]) -> str:
    """Where the head gets more than the best constant, and where less."""
    constant = metrics["choices"].index(metrics["mean"]["best_fixed"]["name"])
    more: list[str] = []
    less: list[str] = []
    for name, task in metrics["tasks"].items():
        gain = task["adaptive"] - task["fixed"][constant]
        (more if gain > 0 else less).append(f"{name} ({gain:+.3f})")
    return (
        "Task by task, the head got more than the best constant in "
        f"{', '.join(more) or 'none'}; not more in {', '.join(less) or 'none'}."
    )


def _kinds(name: str, kinds: dict[str, Any]) -> Html:
    rows = []
    for kind, of_kind in kinds.items():
        interval = _interval(of_kind["ci95"])
        numbers = f"{of_kind['adaptive']:.3f}", interval, f"{of_kind['chosen_temperature']:.2f}"
        rows.append([kind, str(of_kind["prompts"]), *numbers])
    caption = (
        f"{name}, by kind of prompt: does the head tell them apart? Intervals are Wilson's where "
        "every reward is 0 or 1, each prompt counting once, else from resampled prompts: of few "
        "prompts those are rather too narrow."
    )
    return table(caption, ["kind", "prompts", "head", "95% interval", "chosen t"], rows)


def _controls(metrics: dict[str, Any]) -> Html | None:
    if "controls" not in metrics:
        return None
    controls, mean, tasks = metrics["controls"], metrics["mean"], metrics["tasks"]
    best, learned = mean["best_fixed"], controls["learned_constant"]
    constant = metrics["choices"].index(best["name"])
    fixed, adaptive = ({n: task[key] for n, task in tasks.items()} for key in ("fixed", "adaptive"))
    at_best = {"tasks": {n: rewards[constant] for n, rewards in fixed.items()}, **best}
    found = {
        "nobody: temperatures at random": controls["random_head"],
        f"a head that sees nothing: always t={learned['name']}": learned,
        f"the best constant: t={best['name']}": at_best,
        "the head": {"tasks": adaptive, "reward": mean["adaptive"]},
    }
    rows = []
    for who, rewards in found.items():
        numbers = [*rewards["tasks"].values(), rewards["reward"]]
        rows.append([who, *[f"{reward:.3f}" for reward in numbers]])
    words = (
        "A head may win for two reasons: because it found one temperature that is better for "
        "all prompts, or because it adapts to the prompt. The controls tell them apart. The head "
        "that sees nothing had the same training, but its input was always zero, so it could only "
        "learn a constant. What it gains over the best constant is the first part, what the head "
        "gains over it the second."
    )
    parts = {
        "a better constant": controls["found_a_better_constant"],
        "adapting to the context": controls["adapted_to_the_context"],
        "both: the gain over the best constant": mean["gain_over_best_fixed"],
        "(the gain over temperatures at random)": controls["gain_over_random_head"],
    }
    gains = []
    for what, gain in parts.items():
        low, high = gain["ci95"]
        gains.append([what, f"{gain['estimate']:+.3f}", f"{low:+.3f} to {high:+.3f}"])
    heads = ["who chooses", *map(_breakable, tasks), "mean"]
    return joined(
        [
            element("p", words),
            table("Mean reward of each control.", heads, rows),
            table("The parts of the gain.", ["part", "mean reward", "95% interval"], gains),
        ]
    )


def _responses(run: Results) -> Html:
    n_best, n_worst = len(run.best), len(run.worst)
    rule = (
        f"{n_best + n_worst} responses of the head to test prompts, picked by a rule and not by "
        "hand: every task's responses, the first to each prompt, were sorted by reward, equal "
        "ones in the order of the prompts; going around the tasks, the first was taken until there "
        f"were {n_best}, then in the same way the last until there were {n_worst} more. So the "
        "good ones are as good, and the bad ones as bad, as they come. Under a word stands its "
        "temperature."
    )
    parts = [element("p", rule), html_legend(run.metrics["choices"])]
    for which, responses in (("best", run.best), ("worst", run.worst)):
        parts.append(element("h3", f"{len(responses)} of the {which}"))
        parts.append(_list_of_responses(responses))
    return joined(parts)


def _list_of_responses(responses: Sequence[Shown]) -> Html:
    order = list(dict.fromkeys(shown.task for shown in responses))
    items = []
    for shown in sorted(responses, key=lambda shown: order.index(shown.task)):
        about = element("p", f"{shown.task}, reward {shown.reward:.2f}", class_="quiet")
        prompt = element("p", element("b", shown.strip.prompt))
        wrote = html_words(shown.strip) if shown.strip.pieces else element("p", "(no word)")
        items.append(element("li", about, prompt, wrote, class_="response"))
    return element("ol", joined(items), class_="responses")


def _elsewhere(metrics: dict[str, Any]) -> Html | None:
    if "ood" not in metrics:
        return None
    caption = "Mean reward on prompts whose wording or subject never occurs in training."
    words = verdict(metrics["ood"]["mean"]["gain_over_best_fixed"])
    return joined([element("p", words), _reward_table(metrics["ood"], caption)])


def settings(config: RunConfig) -> Html:
    """Every setting with its value and meaning, a table for each section."""
    general = [field for field in dataclasses.fields(config) if field.name not in SECTIONS]
    tables = [_settings_table("The run", config, general)]
    for name, heading in SECTIONS.items():
        section = getattr(config, name)
        tables.append(_settings_table(heading, section, dataclasses.fields(section)))
    return joined(tables)


def _settings_table(caption: str, section: Any, fields: Sequence[dataclasses.Field]) -> Html:
    rows = []
    for field in fields:
        flag = "--" + field.name.replace("_", "-")
        is_set = "help" in field.metadata
        meaning = field.metadata["help"] if is_set else MEASURED[field.name]
        name = element("code", flag) if is_set else field.name
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


def _counted(n: int, what: str) -> str:
    """So many of something.

    >>> _counted(1, "task"), _counted(2, "task")
    ('1 task', '2 tasks')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"

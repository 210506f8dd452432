"""What is measured: every fixed temperature, the head, the best constant, the oracle, win-rates, and intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures
from minilpo.config import EvaluationConfig
from minilpo.model import GPT
from minilpo.rollout import Rollout, generate, score
from minilpo.seeds import python_rng, torch_generator
from minilpo.tasks import Task, kind_of, mixed_prompts
from minilpo.tokenizer import Tokenizer


@dataclass(frozen=True)
class Measured:
    """All that was written and scored on the prompts of one split."""

    task_of: list[Task]  # P
    prompts: list[str]  # P
    names: np.ndarray  # (P,) the name of each prompt's task
    fixed: Rollout  # K responses a prompt, response k at temperature k
    fixed_rewards: np.ndarray  # (P, K)
    adaptive: Rollout | None = None  # one response a prompt, at the head's most likely temperatures (Eq. 4)
    adaptive_rewards: np.ndarray | None = None  # (P,)


def evaluate(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    head: AdaptiveDecoder,
    config: EvaluationConfig,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], Measured]:
    """Measures the head against every fixed temperature.

    The best constant and the oracle are chosen on training prompts; everything is scored on test prompts. Tasks with an
    `ood_prompt` are also scored on prompts whose wording or subject never occurs in training.

    Args:
        model: the language model.
        tokenizer: the model's.
        tasks: each counts the same.
        head: decides greedily (Eq. 4).
        config: how many prompts and resamples.
        seed: of the prompts and the sampling.
        progress: called with the number of responses written, batch by batch.

    Returns:
        The numbers of `metrics.json` from "temperatures" on, and the test responses behind them.
    """
    temperatures = [round(temperature, 6) for temperature in head.temperature_choices.tolist()]
    every_temperature = FixedTemperatures(temperatures).to(head.temperature_choices.device)

    def write(split: str, with_head: bool) -> Measured:
        task_of, prompts = prompts_to_measure(tasks, split, config, seed)
        names = np.array([task.name for task in task_of])
        generator = torch_generator(seed, f"evaluation {split}")
        fixed = generate(
            model, tokenizer, prompts, every_temperature, generator, n_samples=len(temperatures), progress=progress
        )
        fixed_rewards = score(fixed, task_of).double().numpy()
        if not with_head:
            return Measured(task_of, prompts, names, fixed, fixed_rewards)
        adaptive = generate(model, tokenizer, prompts, head, generator, progress=progress)
        return Measured(
            task_of, prompts, names, fixed, fixed_rewards, adaptive, score(adaptive, task_of)[:, 0].double().numpy()
        )

    selection = write("train", with_head=False)
    test = write("test", with_head=True)
    metrics = {"temperatures": temperatures, **summarize(selection, test, temperatures, config.resamples, seed)}
    if any(hasattr(task, "ood_prompt") for task in tasks):
        metrics["ood"] = summarize(selection, write("ood", with_head=True), temperatures, config.resamples, seed)
    return metrics, test


def prompts_to_measure(tasks: Sequence[Task], split: str, config: EvaluationConfig, seed: int) -> tuple[list[Task], list[str]]:
    """The prompts of one split ("train", "test" or "ood") that `evaluate` uses, and the task of each."""
    n_per_task = {"train": config.selection_prompts, "test": config.test_prompts, "ood": config.ood_prompts}[split]
    if split == "ood":
        tasks = [task for task in tasks if hasattr(task, "ood_prompt")]
    return mixed_prompts(tasks, n_per_task, split, python_rng(seed, f"evaluation prompts {split}"))


def responses_to_write(tasks: Sequence[Task], n_choices: int, config: EvaluationConfig) -> int:
    """How many responses `evaluate` writes in all, for a progress bar."""
    n_ood = sum(hasattr(task, "ood_prompt") for task in tasks)
    per_task = n_choices * config.selection_prompts + (n_choices + 1) * config.test_prompts
    return len(tasks) * per_task + n_ood * (n_choices + 1) * config.ood_prompts


def summarize(selection: Measured, test: Measured, temperatures: Sequence[float], resamples: int, seed: int) -> dict[str, Any]:
    """The numbers behind one table: `tasks`, `mean`, `win_rate`. Intervals are 95% paired bootstraps over test prompts.

    Args:
        selection: responses at fixed temperatures; the best constant and the oracle are chosen on them.
        test: responses at fixed temperatures and with the head; everything is scored on them.
        temperatures: K values.
        resamples: bootstrap resamples behind an interval.
        seed: of the bootstrap.
    """
    names, fixed, adaptive = test.names, test.fixed_rewards, test.adaptive_rewards
    chosen_ids = test.adaptive.temperature_ids.masked_fill(~test.adaptive.decision_mask, -1).numpy()  # (P, S)

    def interval(values: np.ndarray, of: np.ndarray = names) -> list[float]:
        return bootstrap_interval(values, of, resamples, np.random.default_rng(seed))

    def describe(rows: np.ndarray) -> dict[str, Any]:
        shares = np.bincount(chosen_ids[rows][chosen_ids[rows] >= 0], minlength=len(temperatures)).astype(float)
        shares /= shares.sum()
        return {
            "prompts": len(rows),
            "fixed": fixed[rows].mean(0).tolist(),
            "adaptive": float(adaptive[rows].mean()),
            "chosen_temperature": float(shares @ temperatures),
            "histogram": shares.tolist(),
        }

    on_selection = mean_over_tasks(selection.fixed_rewards, selection.names)
    constant = int(on_selection.argmax())  # the lower of equals
    oracle_rewards = np.empty(len(names))
    tasks: dict[str, Any] = {}
    for task in dict.fromkeys(test.task_of):
        rows = (names == task.name).nonzero()[0]
        best = int(selection.fixed_rewards[selection.names == task.name].mean(0).argmax())
        oracle_rewards[rows] = fixed[rows, best]
        tasks[task.name] = describe(rows) | {
            "adaptive_ci95": interval(adaptive[rows], names[rows]),
            "oracle": float(fixed[rows, best].mean()),
            "oracle_temperature": temperatures[best],
        }
        kinds = np.array([kind_of(task, test.prompts[row]) for row in rows])
        if hasattr(task, "kind"):
            tasks[task.name]["kinds"] = {kind: describe(rows[kinds == kind]) for kind in sorted(set(kinds.tolist()))}
        if hasattr(task, "parts"):
            tasks[task.name]["parts"] = mean_parts(task, test, rows)

    mean_fixed, mean_adaptive = mean_over_tasks(fixed, names), float(mean_over_tasks(adaptive, names))
    mean_best, mean_oracle = float(mean_fixed[constant]), float(mean_over_tasks(oracle_rewards, names))
    wins = {str(float(t)): win_points(adaptive, fixed[:, k]) for k, t in enumerate(temperatures)}
    return {
        "tasks": tasks,
        "mean": {
            "fixed": mean_fixed.tolist(),
            "best_fixed": {"temperature": temperatures[constant], "reward": mean_best},
            "adaptive": mean_adaptive,
            "oracle": mean_oracle,
            "gain_over_best_fixed": {"estimate": mean_adaptive - mean_best, "ci95": interval(adaptive - fixed[:, constant])},
            "gap_closed": (mean_adaptive - mean_best) / (mean_oracle - mean_best) if mean_oracle > mean_best else None,
        },
        "win_rate": {temperature: float(mean_over_tasks(points, names)) for temperature, points in wins.items()},
        "win_rate_ci95": {temperature: interval(points) for temperature, points in wins.items()},
    }


def mean_over_tasks(values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """The mean over prompts within each task, then over tasks, so that every task counts the same.

    Args:
        values: (P, ...) one value, or several, a prompt.
        names: (P,) the task of each prompt.

    Returns:
        (...).

    >>> float(mean_over_tasks(np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])))
    0.5
    """
    return np.mean([values[names == name].mean(0) for name in np.unique(names)], axis=0)


def win_points(rewards: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The paper's win-rate, prompt by prompt: 1 for the better, 0.5 each for a tie.

    Args:
        rewards: (P,).
        other: (P,) rewards on the same prompts.

    Returns:
        (P,) points of the first.

    >>> win_points(np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.5, 0.2])).tolist()
    [1.0, 0.5, 0.0]
    """
    return (rewards > other) + 0.5 * (rewards == other)


def bootstrap_interval(values: np.ndarray, names: np.ndarray, resamples: int, rng: np.random.Generator) -> list[float]:
    """95% interval of `mean_over_tasks(values, names)`, from resampling the prompts within each task.

    For a difference, pass the differences prompt by prompt: the interval is then paired, and how hard the prompts are doesn't
    widen it.

    Args:
        values: (P,) one value a prompt.
        names: (P,) the task of each prompt.
        resamples: how many times to resample.
        rng: draws the prompts.

    Returns:
        [low, high].

    >>> low, high = bootstrap_interval(np.arange(100.0), np.array(["a"] * 100), 1000, np.random.default_rng(0))
    >>> low < 49.5 < high, round(high - low)
    (True, 11)
    """
    means, tasks = np.zeros(resamples), np.unique(names)
    for name in tasks:
        own = values[names == name]
        counts = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=resamples)  # how often each prompt is drawn
        means += counts @ own / len(own) / len(tasks)
    return [float(bound) for bound in np.percentile(means, [2.5, 97.5])]


def mean_parts(task: Any, test: Measured, rows: np.ndarray) -> dict[str, Any]:
    """The mean of each part of the reward, at every fixed temperature and with the head."""
    K = test.fixed.n_samples
    fixed = [[task.parts(test.prompts[row], test.fixed.responses[row * K + k]) for k in range(K)] for row in rows]
    adaptive = [task.parts(test.prompts[row], test.adaptive.responses[row]) for row in rows]
    return {
        part: {
            "fixed": [float(np.mean([of_row[k][part] for of_row in fixed])) for k in range(K)],
            "adaptive": float(np.mean([of_row[part] for of_row in adaptive])),
        }
        for part in adaptive[0]
    }

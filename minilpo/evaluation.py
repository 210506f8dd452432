"""What is measured: every fixed temperature, the head, the best constant, the oracle, win-rates, controls, and intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder, FixedTemperatures, Rule, TwoTemperatures
from minilpo.config import EvaluationConfig
from minilpo.model import GPT
from minilpo.rollout import Rollout, generate, score
from minilpo.seeds import python_rng, torch_generator
from minilpo.statistics import bootstrap_interval, mean_over_tasks, win_points
from minilpo.tasks import Task, kind_of, mixed_prompts, parts_of
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
    random_rewards: np.ndarray | None = None  # (P,) of one response a prompt, at temperatures drawn evenly


def evaluate(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    head: AdaptiveDecoder,
    config: EvaluationConfig,
    seed: int,
    progress: Callable[[int], None] | None = None,
    constant_head: AdaptiveDecoder | None = None,
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
        constant_head: the control that saw nothing; with it, "controls" says what the gain over the best constant is made of.

    Returns:
        The numbers of `metrics.json` from "temperatures" on, and the test responses behind them.
    """
    temperatures = [round(temperature, 6) for temperature in head.temperature_choices.tolist()]
    untrained = AdaptiveDecoder(model.config.n_embd, temperatures, head.level, n_hidden=1)  # uniform
    untrained.to(head.temperature_choices.device)

    def write(split: str) -> Measured:
        generator = torch_generator(seed, f"evaluation {split}")
        measured = measure_fixed(model, tokenizer, tasks, temperatures, split, config, seed, generator, progress)
        if split == "train":
            return measured
        adaptive, rewards = measure_head(model, tokenizer, measured, head, generator, "greedy", progress)
        _, random_rewards = measure_head(model, tokenizer, measured, untrained, generator, "sample", progress)
        return replace(measured, adaptive=adaptive, adaptive_rewards=rewards, random_rewards=random_rewards)

    selection, test = write("train"), write("test")
    metrics = {"temperatures": temperatures, **summarize(selection, test, temperatures, config.resamples, seed)}
    if constant_head is not None:
        learned = learned_constant(constant_head)
        metrics["controls"] = controls(metrics["mean"], test, temperatures, learned, config.resamples, seed)
    if head.level == "token":
        starts = sentence_starts(tokenizer).to(head.temperature_choices.device)
        for task in tasks:
            rows = torch.from_numpy((test.names == task.name).nonzero()[0])
            metrics["tasks"][task.name] |= by_place_in_sentence(test.adaptive.rows(rows), starts)
            if hasattr(task, "constraint"):
                rule = two_temperatures(model, tokenizer, task, temperatures, selection, test, starts, seed, progress)
                metrics["tasks"][task.name]["two_temperatures"] = rule
    if any(hasattr(task, "ood_prompt") for task in tasks):
        metrics["ood"] = summarize(selection, write("ood"), temperatures, config.resamples, seed)
    return metrics, test


def measure_fixed(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    temperatures: Sequence[float],
    split: str,
    config: EvaluationConfig,
    seed: int,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Writes and scores one response at every temperature to every prompt of a split."""
    task_of, prompts = prompts_to_measure(tasks, split, config, seed)
    every_temperature = FixedTemperatures(list(temperatures)).to(model.token_embedding.weight.device)
    rollout = generate(model, tokenizer, prompts, every_temperature, generator, n_samples=len(temperatures), progress=progress)
    names = np.array([task.name for task in task_of])
    return Measured(task_of, prompts, names, rollout, score(rollout, task_of).double().numpy())


def measure_head(
    model: GPT,
    tokenizer: Tokenizer,
    measured: Measured,
    head: AdaptiveDecoder | Rule,
    generator: torch.Generator,
    selection: str = "greedy",
    progress: Callable[[int], None] | None = None,
) -> tuple[Rollout, np.ndarray]:
    """Writes one response with the head to each of the same prompts. Returns the responses and their rewards, (P,)."""
    rollout = generate(model, tokenizer, measured.prompts, head, generator, selection=selection, progress=progress)
    return rollout, score(rollout, measured.task_of)[:, 0].double().numpy()


@torch.no_grad()
def learned_constant(constant_head: AdaptiveDecoder) -> int:
    """The index of the temperature that a head without input finds most likely."""
    return int(constant_head(constant_head.mlp[0].weight.new_zeros(constant_head.mlp[0].in_features)).argmax())


def prompts_to_measure(tasks: Sequence[Task], split: str, config: EvaluationConfig, seed: int) -> tuple[list[Task], list[str]]:
    """The prompts of one split ("train", "test" or "ood") that `evaluate` uses, and the task of each."""
    n_per_task = {"train": config.selection_prompts, "test": config.test_prompts, "ood": config.ood_prompts}[split]
    if split == "ood":
        tasks = [task for task in tasks if hasattr(task, "ood_prompt")]
    return mixed_prompts(tasks, n_per_task, split, python_rng(seed, f"evaluation prompts {split}"))


def responses_to_write(tasks: Sequence[Task], n_choices: int, level: str, config: EvaluationConfig) -> int:
    """How many responses `evaluate` writes in all, for a progress bar."""
    n_ood = sum(hasattr(task, "ood_prompt") for task in tasks)
    n_grids = sum(hasattr(task, "constraint") for task in tasks) if level == "token" else 0
    per_task = n_choices * config.selection_prompts + (n_choices + 2) * config.test_prompts
    per_grid = n_choices**2 * config.selection_prompts + config.test_prompts
    return len(tasks) * per_task + n_ood * (n_choices + 2) * config.ood_prompts + n_grids * per_grid


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

    constant, best_of_task = best_constants(selection)
    oracle_rewards = np.empty(len(names))
    tasks: dict[str, Any] = {}
    for task in dict.fromkeys(test.task_of):
        rows = (names == task.name).nonzero()[0]
        best = best_of_task[task.name]
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


def best_constants(selection: Measured) -> tuple[int, dict[str, int]]:
    """The index of the best temperature over all tasks, each counting the same, and of the best for every task."""
    names, rewards = selection.names, selection.fixed_rewards
    of_task = {name: int(rewards[names == name].mean(0).argmax()) for name in dict.fromkeys(names.tolist())}
    return int(mean_over_tasks(rewards, names).argmax()), of_task  # the lower of equals


def controls(
    mean: dict[str, Any], test: Measured, temperatures: Sequence[float], learned: int, resamples: int, seed: int
) -> dict[str, Any]:
    """What the gain over the best constant is made of: a better constant, and adapting to the context.

    Args:
        mean: that part of the numbers of `summarize`.
        test: all responses.
        temperatures: K values.
        learned: the index of the temperature that a head without input has learned.
        resamples: bootstrap resamples behind an interval.
        seed: of the bootstrap.

    Returns:
        The mean rewards of the learned constant and of temperatures drawn at random, task by task and over all, and the two
        parts of the gain, which add up to it.
    """
    names, fixed, adaptive, random = test.names, test.fixed_rewards, test.adaptive_rewards, test.random_rewards
    best = list(temperatures).index(mean["best_fixed"]["temperature"])

    def difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
        ci95 = bootstrap_interval(a - b, names, resamples, np.random.default_rng(seed))
        return {"estimate": float(mean_over_tasks(a - b, names)), "ci95": ci95}

    def by_task(rewards: np.ndarray) -> dict[str, Any]:
        tasks = {name: float(rewards[names == name].mean()) for name in dict.fromkeys(names.tolist())}
        return {"reward": float(mean_over_tasks(rewards, names)), "tasks": tasks}

    return {
        "learned_constant": {"temperature": temperatures[learned], **by_task(fixed[:, learned])},
        "random_head": by_task(random),
        "gain_over_random_head": difference(adaptive, random),
        "found_a_better_constant": difference(fixed[:, learned], fixed[:, best]),
        "adapted_to_the_context": difference(adaptive, fixed[:, learned]),
    }


def sentence_starts(tokenizer: Tokenizer) -> Tensor:
    """The token ids after which a sentence begins: the prompt's end mark and the full stop."""
    return torch.tensor([tokenizer.sep_id, *tokenizer.ids_of(["."])])


def by_place_in_sentence(rollout: Rollout, starts: Tensor) -> dict[str, float]:
    """The mean temperature that was chosen for the first word of a sentence, and for all other tokens (token level)."""
    is_first = torch.ones_like(rollout.response_mask)  # the first token of a response
    is_first[:, 1:] = torch.isin(rollout.token_ids[:, :-1], starts)
    made, chosen = rollout.decision_mask, rollout.temperatures
    places = {"first_word_temperature": chosen[made & is_first], "other_temperature": chosen[made & ~is_first]}
    return {name: values.mean().item() if len(values) else 0.0 for name, values in places.items()}


def two_temperatures(
    model: GPT,
    tokenizer: Tokenizer,
    task: Task,
    temperatures: list[float],
    selection: Measured,
    test: Measured,
    starts: Tensor,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The best rule with one temperature for the first word of a sentence and one for the rest, found by trying all pairs.

    The pair is chosen on the selection prompts and scored on the test prompts.
    """
    K, generator = len(temperatures), torch_generator(seed, f"two temperatures {task.name}")
    pairs = [(first, rest) for first in range(K) for rest in range(K)]

    def rewards(measured: Measured, pairs: list[tuple[int, int]]) -> Tensor:
        prompts = [prompt for prompt, name in zip(measured.prompts, measured.names, strict=True) if name == task.name]
        rule = TwoTemperatures(temperatures, pairs, starts)
        rollout = generate(model, tokenizer, prompts, rule, generator, n_samples=len(pairs), progress=progress)
        return score(rollout, [task] * len(prompts))  # (P, n_pairs)

    first, rest = pairs[int(rewards(selection, pairs).mean(0).argmax())]
    reward = rewards(test, [(first, rest)]).mean().item()
    return {"first": temperatures[first], "rest": temperatures[rest], "reward": reward}


def mean_parts(task: Any, test: Measured, rows: np.ndarray) -> dict[str, Any]:
    """The mean of each part of the reward, at every fixed temperature and with the head."""
    K = test.fixed.n_samples
    names = [*parts_of(task, test.prompts[rows[0]], test.adaptive.responses[rows[0]])]
    adaptive = [parts_of(task, test.prompts[row], test.adaptive.responses[row], names) for row in rows]
    fixed = [[parts_of(task, test.prompts[row], test.fixed.responses[row * K + k], names) for k in range(K)] for row in rows]
    return {
        part: {
            "fixed": [float(np.mean([of_row[k][part] for of_row in fixed])) for k in range(K)],
            "adaptive": float(np.mean([of_row[part] for of_row in adaptive])),
        }
        for part in names
    }

"""What was measured, summed up: best constants, the numbers of `metrics.json`, controls."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from minilpo.decoding.rollout import Rollout
from minilpo.evaluation.measure import Compared, Measured
from minilpo.evaluation.statistics import bootstrap_interval, mean_over_tasks, win_points
from minilpo.tasks import Task, kind_of, offers, parts_of


def summarize(
    selection: Measured, test: Compared, temperatures: Sequence[float], resamples: int, seed: int
) -> dict[str, Any]:
    """The numbers behind one table: `tasks`, `mean`, `win_rate`, with 95% paired bootstraps.

    Args:
        selection: responses at fixed temperatures; the best constant and the oracle are chosen on
            them.
        test: responses at fixed temperatures and with the head; everything is scored on them.
        temperatures: K values.
        resamples: bootstrap resamples behind an interval.
        seed: of the bootstrap.
    """
    names, fixed, adaptive = test.names, test.fixed_rewards, test.adaptive_rewards
    constant, best_of_task = best_constants(selection)
    best = [best_of_task[name] for name in names]
    interval = partial(interval_of, resamples=resamples, seed=seed)

    # 1. Task by task, and kind by kind where a task has kinds.
    tasks: dict[str, Any] = {}
    for task in dict.fromkeys(test.task_of):
        rows, k = (names == task.name).nonzero()[0], best_of_task[task.name]
        tasks[task.name] = {
            **describe(test, rows, temperatures),
            "adaptive_ci95": interval(adaptive[rows], names[rows]),
            "oracle": float(fixed[rows, k].mean()),
            "oracle_temperature": temperatures[k],
            **kinds_and_parts(test, task, rows, temperatures),
        }

    # 2. Over all, each task counting the same.
    mean_fixed, mean_adaptive = mean_over_tasks(fixed, names), mean_over_tasks(adaptive, names)
    mean_oracle = mean_over_tasks(fixed[np.arange(len(names)), best], names)
    mean_best = mean_fixed[constant]
    gap = mean_oracle - mean_best
    closed = float((mean_adaptive - mean_best) / gap) if gap > 0 else None
    gain = {
        "estimate": float(mean_adaptive - mean_best),
        "ci95": interval(adaptive - fixed[:, constant], names),
    }

    # 3. Prompt by prompt, against each fixed temperature.
    points = {str(float(t)): win_points(adaptive, fixed[:, k]) for k, t in enumerate(temperatures)}
    return {
        "tasks": tasks,
        "mean": {
            "fixed": mean_fixed.tolist(),
            "best_fixed": {"temperature": temperatures[constant], "reward": float(mean_best)},
            "adaptive": float(mean_adaptive),
            "oracle": float(mean_oracle),
            "gain_over_best_fixed": gain,
            "gap_closed": closed,
        },
        "win_rate": {t: float(mean_over_tasks(won, names)) for t, won in points.items()},
        "win_rate_ci95": {t: interval(won, names) for t, won in points.items()},
    }


def interval_of(values: np.ndarray, names: np.ndarray, *, resamples: int, seed: int) -> list[float]:
    """`bootstrap_interval` with the same resampled prompts each time."""
    return bootstrap_interval(values, names, resamples, np.random.default_rng(seed))


def describe(test: Compared, rows: np.ndarray, temperatures: Sequence[float]) -> dict[str, Any]:
    """Mean rewards of some prompts, and which temperatures the head chose for them."""
    made = test.adaptive.decisions
    chosen = made.choice_ids.numpy()[rows][made.mask.numpy()[rows]]
    shares = np.bincount(chosen, minlength=len(temperatures)).astype(float)
    shares /= shares.sum()
    return {
        "prompts": len(rows),
        "fixed": test.fixed_rewards[rows].mean(0).tolist(),
        "adaptive": float(test.adaptive_rewards[rows].mean()),
        "chosen_temperature": float(shares @ temperatures),
        "histogram": shares.tolist(),
    }


def kinds_and_parts(
    test: Compared, task: Task, rows: np.ndarray, temperatures: Sequence[float]
) -> dict[str, Any]:
    """`describe` for each kind of a task's prompts, and the parts of its reward, if it has any."""
    numbers: dict[str, Any] = {}
    kinds = np.array([kind_of(task, test.prompts[row]) for row in rows])
    if set(kinds) != {task.name}:
        of_kind = {kind: rows[kinds == kind] for kind in sorted(set(kinds.tolist()))}
        numbers["kinds"] = {kind: describe(test, r, temperatures) for kind, r in of_kind.items()}
    if offers(task, "parts"):
        numbers["parts"] = mean_parts(task, test, rows)
    return numbers


def best_constants(selection: Measured) -> tuple[int, dict[str, int]]:
    """The index of the best temperature over all tasks, each counting the same, and per task."""
    names, rewards = selection.names, selection.fixed_rewards
    order = dict.fromkeys(names.tolist())
    of_task = {name: int(rewards[names == name].mean(0).argmax()) for name in order}
    return int(mean_over_tasks(rewards, names).argmax()), of_task  # the lower of equals


def controls(
    mean: dict[str, Any],
    test: Compared,
    temperatures: Sequence[float],
    learned: int,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """What the gain is made of: a better constant, and adapting to the context.

    Args:
        mean: that part of the numbers of `summarize`.
        test: all responses.
        temperatures: K values.
        learned: the index of the temperature that a head without input has learned.
        resamples: bootstrap resamples behind an interval.
        seed: of the bootstrap.

    Returns:
        The mean rewards of the learned constant and of temperatures drawn at random, task by task
        and over all, and the two parts of the gain, which add up to it.
    """
    names, fixed, adaptive = test.names, test.fixed_rewards, test.adaptive_rewards
    interval = partial(interval_of, resamples=resamples, seed=seed)
    best = list(temperatures).index(mean["best_fixed"]["temperature"])

    def difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
        estimate = float(mean_over_tasks(a - b, names))
        return {"estimate": estimate, "ci95": interval(a - b, names)}

    def by_task(rewards: np.ndarray) -> dict[str, Any]:
        order = dict.fromkeys(names.tolist())
        tasks = {name: float(rewards[names == name].mean()) for name in order}
        return {"reward": float(mean_over_tasks(rewards, names)), "tasks": tasks}

    return {
        "learned_constant": {"temperature": temperatures[learned], **by_task(fixed[:, learned])},
        "random_head": by_task(test.random_rewards),
        "gain_over_random_head": difference(adaptive, test.random_rewards),
        "found_a_better_constant": difference(fixed[:, learned], fixed[:, best]),
        "adapted_to_the_context": difference(adaptive, fixed[:, learned]),
    }


def mean_parts(task: Task, test: Compared, rows: np.ndarray) -> dict[str, Any]:
    """The mean of each part of the reward, at every fixed temperature and with the head."""
    K, prompts = test.fixed.n_samples, [test.prompts[row] for row in rows]
    responses = [test.adaptive.responses[row] for row in rows]
    names = [*parts_of(task, prompts[0], responses[0])]

    def means(responses: list[str]) -> dict[str, float]:
        pairs = zip(prompts, responses, strict=True)
        parts = [parts_of(task, prompt, response, names) for prompt, response in pairs]
        return {name: float(np.mean([of_row[name] for of_row in parts])) for name in names}

    adaptive = means(responses)
    fixed = [means([test.fixed.responses[row * K + k] for row in rows]) for k in range(K)]
    return {
        name: {"fixed": [of_choice[name] for of_choice in fixed], "adaptive": adaptive[name]}
        for name in names
    }


def by_place_in_sentence(
    rollout: Rollout, temperatures: Sequence[float], sentence_starts: Sequence[int]
) -> dict[str, float]:
    """The mean temperature chosen for first words of sentences, and for all other tokens."""
    is_first = torch.ones_like(rollout.response_mask)  # the first token of a response
    starts = torch.tensor(sentence_starts)
    is_first[:, 1:] = torch.isin(rollout.token_ids[:, :-1], starts)
    made, chosen = rollout.decisions.mask, torch.tensor(temperatures)[rollout.decisions.choice_ids]
    places = {
        "first_word_temperature": chosen[made & is_first],
        "other_temperature": chosen[made & ~is_first],
    }
    return {name: found.mean().item() if len(found) else 0.0 for name, found in places.items()}

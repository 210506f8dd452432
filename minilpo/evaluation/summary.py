"""Sums up measurements: best constants, the numbers of `metrics.json`, controls."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from minilpo.decoding.choices import Temperatures
from minilpo.decoding.rollout import Rollout
from minilpo.evaluation.measure import Compared, Measured
from minilpo.evaluation.statistics import (
    bootstrap_interval,
    mean_over_tasks,
    ratio_interval,
    wilson_interval,
    win_shares,
)
from minilpo.setting import have_rules
from minilpo.tasks import Task, offers, parts_of
from minilpo.tasks.calling import refusal, shown

FEWEST = 8  # training prompts of a kind on which a constant of its own is chosen


def summarize(
    selection: Measured, test: Compared, choices: Temperatures, resamples: int, seed: int
) -> dict[str, Any]:
    """Computes the numbers of one table, with 95% paired bootstraps.

    Args:
        selection: responses at fixed temperatures; the best constants, over all prompts, per task
            and per kind of prompt, are chosen on them.
        test: responses at fixed temperatures and with the head; everything is scored on them.
        choices: the K fixed temperatures.
        resamples: bootstrap resamples behind an interval.
        seed: of the bootstrap.
    """
    temperatures, names, kinds = choices.temperatures, test.names, test.kinds
    fixed, adaptive = test.fixed_rewards, test.adaptive_rewards
    constant, of_task = best_constants(selection)
    of_kind, every = best_per_kind(selection, of_task), np.arange(len(names))
    pairs = zip(names.tolist(), kinds.tolist(), strict=True)
    per_task = fixed[every, [of_task[name] for name in names]]
    per_kind = fixed[every, [of_kind.get((name, kind), of_task[name]) for name, kind in pairs]]
    interval = partial(interval_of, resamples=resamples, seed=seed)

    def difference(rewards: np.ndarray) -> dict[str, Any]:
        estimate = mean_over_tasks(adaptive, names) - mean_over_tasks(rewards, names)
        return {"estimate": float(estimate), "ci95": interval(adaptive - rewards, names)}

    # 1. Task by task, and kind by kind where a task has kinds.
    tasks: dict[str, Any] = {}
    for task in {task.name: task for task in test.tasks}.values():
        rows = (names == task.name).nonzero()[0]
        tasks[task.name] = {
            **describe(test, rows, temperatures),
            "adaptive_ci95": interval(adaptive[rows], names[rows]),
            # The old name of the best per task, for readers of older files.
            "oracle": float(per_task[rows].mean()),
            "oracle_temperature": temperatures[of_task[task.name]],
            "oracle_name": choices.names[of_task[task.name]],
            "best_per_task": float(per_task[rows].mean()),
            "best_per_kind": float(per_kind[rows].mean()),
        }
        if set(kinds[rows]) != {task.name}:
            by_kind = tasks[task.name]["kinds"] = {}
            for kind in sorted(set(kinds[rows].tolist())):
                few = rows[kinds[rows] == kind]
                by_kind[kind] = describe(test, few, temperatures)
                by_kind[kind] |= interval_of_few(test, few, interval)
        if offers(task, "parts"):
            tasks[task.name]["parts"] = mean_parts(task, test, rows)

    # 2. Over all, each task counting the same.
    mean_fixed, mean_per_task = mean_over_tasks(fixed, names), mean_over_tasks(per_task, names)
    best = fixed[:, constant]
    gain, gap = difference(best), mean_per_task - mean_fixed[constant]
    closed = closed_ci95 = None
    if gap > 0:  # else the best per task gets no more than the best constant: nothing to close
        closed = float(gain["estimate"] / gap)
        closed_ci95 = ratio_interval(adaptive - best, per_task - best, names, resamples, seed)

    # 3. Prompt by prompt, against each fixed temperature.
    keys = choices.names if have_rules(choices.names) else [str(float(t)) for t in temperatures]
    won = {
        key: win_shares(test.adaptive_samples, test.fixed_samples[:, k])
        for k, key in enumerate(keys)
    }
    return {
        "choices": list(choices.names),
        "tasks": tasks,
        "mean": {
            "fixed": mean_fixed.tolist(),
            "best_fixed": {
                "temperature": temperatures[constant],
                "name": choices.names[constant],
                "reward": float(mean_fixed[constant]),
            },
            "adaptive": float(mean_over_tasks(adaptive, names)),
            "oracle": float(mean_per_task),
            "best_per_task": float(mean_per_task),
            "best_per_kind": float(mean_over_tasks(per_kind, names)),
            "gain_over_best_fixed": gain,
            "gain_over_best_per_task": difference(per_task),
            "gain_over_best_per_kind": difference(per_kind),
            "gap_closed": closed,
            "gap_closed_ci95": closed_ci95,
        },
        "win_rate": {t: float(mean_over_tasks(points, names)) for t, points in won.items()},
        "win_rate_ci95": {t: interval(points, names) for t, points in won.items()},
    }


def interval_of(values: np.ndarray, names: np.ndarray, *, resamples: int, seed: int) -> list[float]:
    """Calls `bootstrap_interval` with the same resampled prompts each time."""
    return bootstrap_interval(values, names, resamples, np.random.default_rng(seed))


def describe(test: Compared, rows: np.ndarray, temperatures: Sequence[float]) -> dict[str, Any]:
    """Computes mean rewards on some prompts, and which temperatures the head chose for them."""
    decisions, own = test.adaptive.decisions, torch.from_numpy(test.adaptive_rows(rows))
    chosen = decisions.choice_ids[own][decisions.mask[own]].numpy()
    shares = np.bincount(chosen, minlength=len(temperatures)).astype(float)
    shares /= shares.sum()
    return {
        "prompts": len(rows),
        "fixed": test.fixed_rewards[rows].mean(0).tolist(),
        "adaptive": float(test.adaptive_rewards[rows].mean()),
        "chosen_temperature": float(shares @ temperatures),
        "histogram": shares.tolist(),
    }


def interval_of_few(
    test: Compared, rows: np.ndarray, interval: Callable[[np.ndarray, np.ndarray], list[float]]
) -> dict[str, Any]:
    """Computes the 95% interval of the head's mean reward on a few prompts, and names the method.

    Where every reward is 0 or 1 it is Wilson's, which knows that 20 right answers out of 20 don't
    make the 21st certain. Each prompt counts as one trial, however many responses it got: they are
    too alike to count for more. Other rewards are resampled, which takes two prompts at least.
    """
    rewards, n = test.adaptive_rewards[rows], len(rows)
    every = np.append(test.fixed_samples[rows], test.adaptive_samples[rows])
    if np.isin(every, (0, 1)).all():
        return {"ci95": wilson_interval(float(rewards.sum()), n), "ci95_by": "wilson"}
    ci95 = interval(rewards, test.names[rows]) if n > 1 else None
    return {"ci95": ci95, "ci95_by": "bootstrap"}


def best_constants(selection: Measured) -> tuple[int, dict[str, int]]:
    """Finds the index of the best temperature over all tasks, each counting the same, and per task.

    Of equals it is the lower one.
    """
    names, rewards = selection.names, selection.fixed_rewards
    order = dict.fromkeys(names.tolist())
    of_task = {name: int(rewards[names == name].mean(0).argmax()) for name in order}
    return int(mean_over_tasks(rewards, names).argmax()), of_task


def best_per_kind(selection: Measured, of_task: dict[str, int]) -> dict[tuple[str, str], int]:
    """Finds the index of the best temperature for each kind of prompt, by (task, kind).

    A kind with fewer than `FEWEST` prompts in the selection has that of its task: chosen on so few
    it would be chance.
    """
    names, kinds, best = selection.names, selection.kinds, {}
    for name, kind in dict.fromkeys(zip(names.tolist(), kinds.tolist(), strict=True)):
        rewards = selection.fixed_rewards[(names == name) & (kinds == kind)]
        enough = len(rewards) >= FEWEST
        best[name, kind] = int(rewards.mean(0).argmax()) if enough else of_task[name]
    return best


def controls(
    mean: dict[str, Any],
    test: Compared,
    choices: Temperatures,
    learned: int,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Splits the gain in two, a better constant and adapting to the context, which add up to it.

    Args:
        mean: that part of the numbers of `summarize`.
        test, choices, resamples, seed: as in `summarize`.
        learned: the index of the temperature that a head without input has learned.

    Returns:
        The two parts, and the mean rewards of the learned constant and of temperatures drawn at
        random, task by task and over all.
    """
    names, fixed, adaptive = test.names, test.fixed_rewards, test.adaptive_rewards
    best = choices.names.index(mean["best_fixed"]["name"])

    def difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
        interval = interval_of(a - b, names, resamples=resamples, seed=seed)
        return {"estimate": float(mean_over_tasks(a - b, names)), "ci95": interval}

    def by_task(rewards: np.ndarray) -> dict[str, Any]:
        order = dict.fromkeys(names.tolist())
        tasks = {name: float(rewards[names == name].mean()) for name in order}
        return {"reward": float(mean_over_tasks(rewards, names)), "tasks": tasks}

    return {
        "learned_constant": {
            "temperature": choices.temperatures[learned],
            "name": choices.names[learned],
            **by_task(fixed[:, learned]),
        },
        "random_head": by_task(test.random_rewards),
        "gain_over_random_head": difference(adaptive, test.random_rewards),
        "found_a_better_constant": difference(fixed[:, learned], fixed[:, best]),
        "adapted_to_the_context": difference(adaptive, fixed[:, learned]),
    }


def mean_parts(task: Task, test: Compared, rows: np.ndarray) -> dict[str, Any]:
    """Computes the mean of each part of the reward, at every temperature and with the head."""
    adaptive, texts = test.adaptive_rows(rows), test.texts
    names = [*parts_of(task, texts[rows[0]], test.adaptive.responses[adaptive[0]])]

    def means(rollout: Rollout, rows: np.ndarray) -> list[float]:
        parts = []
        for row in rows.tolist():
            prompt, response = texts[row // rollout.n_samples], rollout.responses[row]
            found = parts_of(task, prompt, response, names)
            if len(found) != len(names):
                got = f"got {shown(found, 100)}, and {shown(names)} for another response"
                raise refusal(task, "parts", (prompt, response), got)
            parts.append(found)
        return [float(np.mean([of_row[name] for of_row in parts])) for name in names]

    with_head = means(test.adaptive, adaptive)
    fixed = [means(test.fixed, test.fixed_rows(rows, k)) for k in range(len(test.places))]
    by_name = zip(names, zip(*fixed, strict=True), with_head, strict=True)
    return {name: {"fixed": [*at_fixed], "adaptive": own} for name, at_fixed, own in by_name}


def by_place_in_sentence(
    rollout: Rollout, temperatures: Sequence[float], sentence_starts: Sequence[int]
) -> dict[str, float]:
    """Computes the mean temperature chosen for first words of sentences, and for other tokens."""
    is_first = torch.ones_like(rollout.response_mask)  # the first token of a response
    is_first[:, 1:] = torch.isin(rollout.token_ids[:, :-1], torch.tensor(sentence_starts))
    mask, chosen = rollout.decisions.mask, torch.tensor(temperatures)[rollout.decisions.choice_ids]
    places = {
        "first_word_temperature": chosen[mask & is_first],
        "other_temperature": chosen[mask & ~is_first],
    }
    return {name: found.mean().item() if len(found) else 0.0 for name, found in places.items()}

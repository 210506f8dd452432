"""The evaluation of a trained head: measures and sums up the numbers of `metrics.json`."""

from collections.abc import Sequence
from typing import Any

import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import EvaluationConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import Respond, respond
from minilpo.decoding.policies import GreedyHead
from minilpo.evaluation.measure import (
    Compared,
    TwoTemperatures,
    compare,
    layout,
    learned_constant,
    measure_fixed,
    prompts_to_measure,
)
from minilpo.evaluation.summary import by_place_in_sentence, controls, summarize
from minilpo.lm.language_model import LanguageModel
from minilpo.seeds import torch_defaults, torch_generator
from minilpo.tasks import Task, offers


@torch_defaults()
def evaluate(
    lm: LanguageModel,
    tasks: Sequence[Task],
    policy: GreedyHead,
    config: EvaluationConfig,
    seed: int,
    constant_head: AdaptiveDecoder | None = None,
    respond: Respond = respond,
) -> tuple[dict[str, Any], Compared]:
    """Measures the head against every fixed temperature.

    The best constants are chosen on training prompts, with one response at each temperature;
    everything is scored on test prompts, with `config.samples_per_prompt`. Tasks with an
    `ood_prompt` are also scored on prompts whose wording or subject never occurs in training.

    Args:
        lm: the language model.
        tasks: each counts the same.
        policy: the head, which decides greedily (Eq. 4), and the `Temperatures` it chooses among.
        config: how many prompts, responses and resamples.
        seed: of the prompts and the sampling.
        constant_head: the control that saw nothing. With it, "controls" splits the gain over the
            best constant into its parts.
        respond: writes and scores; another one may share the prompts among processes.

    Returns:
        The numbers of `metrics.json` from "temperatures" on, and the test responses behind them.

    Raises:
        ValueError: if the head chooses among something else than temperatures.
    """
    choices, N, resamples = policy.choices, config.samples_per_prompt, config.resamples
    if not isinstance(choices, Temperatures):
        raise ValueError(
            f"policy must choose among Temperatures, got {type(choices).__name__}; "
            "for other choices use measure_fixed and measure_policy"
        )
    splits = "train", "test", "ood"
    train, test, ood = (prompts_to_measure(tasks, split, config, seed) for split in splits)
    # 1. Choose constants on training prompts, score everything on test prompts.
    generator = torch_generator(seed, "evaluation train")
    selection = measure_fixed(lm, train, choices, generator, 1, respond)
    tested = compare(lm, test, policy, torch_generator(seed, "evaluation test"), N, respond)
    summary = summarize(selection, tested, choices, resamples, seed)
    metrics = {"temperatures": list(choices.temperatures), **summary}
    # 2. Split the gain into its parts.
    if constant_head is not None:
        learned = learned_constant(constant_head)
        metrics["controls"] = controls(summary["mean"], tested, choices, learned, resamples, seed)
    # 3. Look within sentences, where a head may change its mind.
    for task in tasks if policy.level == "token" else ():
        rows = tested.adaptive_rows((tested.names == task.name).nonzero()[0])
        own, numbers = tested.adaptive.rows(torch.from_numpy(rows)), metrics["tasks"][task.name]
        numbers |= by_place_in_sentence(own, choices.temperatures, lm.sentence_starts)
        if task.constraint:
            search = TwoTemperatures(lm, choices, train.of(task), test.of(task), seed, N, respond)
            numbers["two_temperatures"] = search.search()
    # 4. Measure on wordings and subjects that training never showed.
    if ood.prompts:
        unfamiliar = compare(lm, ood, policy, torch_generator(seed, "evaluation ood"), N, respond)
        metrics["ood"] = summarize(selection, unfamiliar, choices, resamples, seed)
    return metrics, tested


def responses_to_evaluate(
    tasks: Sequence[Task], policy: GreedyHead, config: EvaluationConfig
) -> int:
    """Counts the responses that `evaluate` writes, to show a progress bar by."""
    K, N, is_token = len(policy.choices), config.samples_per_prompt, policy.level == "token"
    by_options, _ = layout(policy.choices, N)
    n_ood = config.ood_prompts * sum(offers(task, "ood_prompt") for task in tasks)
    n_searches = sum(bool(task.constraint) for task in tasks) if is_token else 0
    return (
        K * config.selection_prompts * len(tasks)
        + (len(by_options) + 2 * N * is_token) * (config.test_prompts * len(tasks) + n_ood)
        + (K**2 * config.selection_prompts + N * config.test_prompts) * n_searches
    )

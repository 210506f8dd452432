"""Not in the paper: the head chooses no temperature, but whether to think or to answer at once.

Only `Choices` differ: head, LPO and evaluation are those of the other experiments.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.constant_control import fit_constant
from minilpo.decoding.choices import FirstTokens
from minilpo.decoding.policies import GreedyHead
from minilpo.evaluation.measure import Measured, learned_constant, measure_fixed, prompts_to_measure
from minilpo.evaluation.statistics import bootstrap_interval
from minilpo.evaluation.summary import best_constants, best_per_kind
from minilpo.experiments.base import (
    Finding,
    Numbers,
    Row,
    compared,
    draw_bars,
    draw_line,
    values_of,
)
from minilpo.experiments.lab import Lab, pairs_per_batch
from minilpo.lpo import train_lpo
from minilpo.rivals.think_or_answer import ANSWER, KINDS, THINK, ThinkOrAnswer
from minilpo.run import processes
from minilpo.run.begin import pretraining_prompts
from minilpo.seeds import torch_generator
from minilpo.show import plots
from minilpo.training import TrainState, draw_prompts

PAPER = (
    "(not in the paper) no temperature is chosen, but whether to think step by step or to answer "
    "at once, with a price per word"
)
STEPS, DEMONSTRATIONS = 3000, 48_000  # at most, for the language model of this task
WORDS = {"think": THINK, "answer": ANSWER}  # with which a response begins, by the choice
CONSTANTS = ("best constant", "learned constant")  # the same choice for all prompts
OTHERS = ("best per number of steps", "head by best/worst")
# What both choices must be able to do, so that the right one depends on the prompt.
SURE, UNSURE = 0.95, 0.6


def measure(lab: Lab) -> Numbers:
    """Right answers, rewards and choices, by how many steps there are to do."""
    own, task = lab.apart(ThinkOrAnswer.name, STEPS, DEMONSTRATIONS), ThinkOrAnswer()
    first = own.lm.tokenizer.ids_of(f" {word}" for word in WORDS.values())
    choices = FirstTokens(first, list(WORDS))
    # As many responses as for other heads of one task, but from four times the prompts: a choice
    # always writes the same, so a quarter of the samples shows both.
    lpo = replace(own.config.lpo, loss="default", samples=max(2, own.config.lpo.samples // 4))
    # A wrong answer costs far more than some words, so pairs count by how much the rewards differ.
    # Best against worst, for comparison, counts only which choice is the better one.
    batch = pairs_per_batch(lpo, "gap", lpo.samples)
    by_gap = replace(lpo, pairs="gap", pairs_per_batch=batch)
    head, constant_head = _train(own, choices, by_gap)
    other_head, _ = _train(own, choices, replace(lpo, pairs="best_worst"))

    train, test = (_measure(own, task, choices, split) for split in ("train", "test"))
    rollout, rewards = own.adaptive(GreedyHead(head, choices), test)
    thinks = rollout.decisions.choice_ids[:, 0].numpy() == choices.names.index("think")
    best, of_task = best_constants(train)
    of_kind = best_per_kind(train, of_task)
    per_kind = [of_kind.get((task.name, kind), best) for kind in test.kinds.tolist()]
    others = {
        "best constant": test.fixed_rewards[:, best],
        "learned constant": test.fixed_rewards[:, learned_constant(constant_head)],
        "best per number of steps": test.fixed_rewards[np.arange(len(thinks)), per_kind],
        "head by best/worst": own.adaptive(GreedyHead(other_head, choices), test)[1],
    }
    measured = {**dict(zip(choices.names, test.fixed_rewards.T, strict=True)), "head": rewards}
    rng, resamples = np.random.default_rng(own.seed), own.config.evaluation.resamples
    return {
        "right": {"train": _right(task, train), "test": _right(task, test)},
        "reward": {name: _by_kind(values, test.kinds) for name, values in measured.items()},
        "thinks": _by_kind(thinks, test.kinds),
        "best_constant": choices.names[best],
        "mean": {name: float(r.mean()) for name, r in {**others, "head": rewards}.items()},
        "gain_ci95": {
            name: bootstrap_interval(rewards - other, test.names, resamples, rng)
            for name, other in others.items()
        },
        "seen_in_pretraining": _n_seen(own, lpo, [*train.texts, *test.texts]),
    }


def _train(lab: Lab, choices: FirstTokens, config: LPOConfig) -> tuple[AdaptiveDecoder, ...]:
    """The head, and the control that sees nothing."""
    head, constant_head = lab.new_heads(len(choices), "sequence", config.n_hidden)
    state = TrainState(head, config)
    state.callbacks.append(fit_constant(constant_head, config, lab.seed))
    train_lpo(lab.lm, lab.run.tasks, head, choices, config, lab.seed, state, processes.respond)
    return head, constant_head


def _measure(lab: Lab, task: ThinkOrAnswer, choices: FirstTokens, split: str) -> Measured:
    """A response by both choices to each prompt of a split."""
    prompts = prompts_to_measure([task], split, lab.config.evaluation, lab.seed)
    generator = torch_generator(lab.seed, f"think or answer {split}")
    return measure_fixed(lab.lm, prompts, choices, generator, respond=processes.respond)


def _right(task: ThinkOrAnswer, measured: Measured) -> dict[str, dict[str, float]]:
    """The share of right answers by choice and kind of prompt."""
    shares, every = {}, np.arange(len(measured.prompts))
    for k, name in enumerate(WORDS):
        responses = [measured.fixed.responses[row] for row in measured.fixed_rows(every, k)]
        pairs = zip(measured.texts, responses, strict=True)
        right = np.array([task.is_right(*pair) for pair in pairs])
        shares[name] = _by_kind(right, measured.kinds)
    return shares


def _by_kind(values: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    return {kind: float(values[kinds == kind].mean()) for kind in KINDS if kind in kinds}


def _n_seen(lab: Lab, config: LPOConfig, prompts: list[str]) -> int:
    """How many of these prompts and of LPO's pretraining has shown: an answer at once to one of
    them might be known by heart.
    """
    rounds, held_out = draw_prompts(lab.run.tasks, config, lab.seed)
    of_lpo = [prompt.text for part in (*rounds, held_out) for prompt in part]
    return len(pretraining_prompts(lab.run) & {*prompts, *of_lpo})


def conclude(seeds: Sequence[Numbers]) -> Finding:
    """Both choices by length, what the head chooses, what that gains, and whether all is shown."""
    kinds, thinks = _kinds_of(seeds), _by_kinds(seeds, "thinks")
    right = {name: _by_kinds(seeds, "right", "test", name) for name in WORDS}
    shares = {
        "right at once": right["answer"],
        "right after thinking": right["think"],
        "head thinks": thinks,
    }
    rows = []
    for label, values in shares.items():
        rows += [Row(f"{label}, {kind} (%)", 100 * values[:, k]) for k, kind in enumerate(kinds)]
    mean = {name: values_of(seeds, "mean", name) for name in seeds[0]["mean"]}
    rows += [Row(f"reward: {name}", values) for name, values in mean.items()]
    gains = {}
    for name in (*CONSTANTS, *OTHERS):
        gains[name] = Row(f"head - {name}", mean["head"] - mean[name])
    seen = values_of(seeds, "seen_in_pretraining")
    rows += [*gains.values(), Row("prompts that pretraining has shown", seen)]

    gain, others = gains["best constant"], {f"the {name}": gains[name] for name in OTHERS}
    verdict = gain.told("gains", "loses", "neither clearly gains nor loses")
    # What it takes that the right choice depends on the prompt, and whether every seed shows it.
    holds = {
        f"thinking is right on at least {SURE:.0%}, with however many steps": (
            right["think"].min() >= SURE
        ),
        f"an answer at once is right on more than {SURE:.0%} with {kinds[0]}": (
            right["answer"][:, 0].min() > SURE
        ),
        f"an answer at once is right on less than {UNSURE:.0%} with {kinds[-1]}": (
            right["answer"][:, -1].max() < UNSURE
        ),
        "pretraining has shown none of the prompts": not seen.any(),
        "the head is above both constants, by intervals over prompts": (
            min(values_of(seeds, "gain_ci95", name, 0).min() for name in CONSTANTS) > 0
        ),
    }
    failed = [claim for claim, is_true in holds.items() if not is_true]
    sentence = (
        f"Against the best constant the head {verdict} ({gain.text()}). It thinks on "
        f"{thinks[:, 0].mean():.0%} of the prompts with {kinds[0]} and on "
        f"{thinks[:, -1].mean():.0%} of those with {kinds[-1]}. "
        f"It is {compared(others)}. "
    )
    sentence += (
        f"It is not true on every seed that {'; that '.join(failed)}."
        if failed
        else f"On every seed {'; '.join(holds)}."
    )
    return Finding(rows, not failed and gain.sign() > 0, sentence)


def _kinds_of(seeds: Sequence[Numbers]) -> list[str]:
    """The kinds of prompts that every seed has measured: few test prompts may lack one."""
    return [kind for kind in KINDS if all(kind in seed["thinks"] for seed in seeds)]


def _by_kinds(seeds: Sequence[Numbers], *keys: str) -> np.ndarray:
    """What every seed holds under some keys by kind of prompt, (seeds, kinds)."""
    return np.column_stack([values_of(seeds, *keys, kind) for kind in _kinds_of(seeds)])


def draw(seeds: Sequence[Numbers]) -> Figure:
    """By the number of steps: right answers, how often the head thinks, and rewards."""
    fig, axes = plots.figure(1, 3)
    right, thinks, reward = axes.flat
    steps = [kind.split()[0] for kind in _kinds_of(seeds)]
    places = np.arange(len(steps))
    colours = {"think": plots.BLUE, "answer": plots.GREY, "head": plots.ORANGE}
    labels = {"think": "think", "answer": "answer at once", "head": "head"}
    for name, label in labels.items():
        style = {"label": label, "color": colours[name]}
        draw_line(reward, places, _by_kinds(seeds, "reward", name), **style)
        if name in WORDS:
            draw_line(right, places, 100 * _by_kinds(seeds, "right", "test", name), **style)
    shares = _by_kinds(seeds, "thinks")
    thinking = 100 * draw_bars(thinks, places, shares, color=plots.ORANGE, width=0.7)
    right.set(ylabel="right answers (%)", ylim=(0, 105))
    thinks.set(ylabel="prompts (%)", ylim=(0, 105))
    reward.set(ylabel="mean reward", ylim=(0, 1.02))
    at_once = 100 * _by_kinds(seeds, "right", "test", "answer").mean(0)
    right.set_title(f"At once: {at_once[0]:.0f}% right, then {at_once[-1]:.0f}%")
    thinks.set_title(f"The head thinks: {thinking[0]:.0f}% to {thinking[-1]:.0f}%")
    head, constant = (values_of(seeds, "mean", name) for name in ("head", "best constant"))
    reward.set_title(f"Head - best constant: {(head - constant).mean():+.3f}")
    for ax in axes.flat:
        ax.set_xticks(places, steps)
        ax.set_xlabel("steps")
    plots.legend(right, loc="lower left")
    plots.legend(reward, loc="lower left")
    return fig

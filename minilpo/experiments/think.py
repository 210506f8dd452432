"""Not in the paper: the head chooses no temperature, but whether to think or to answer at once.

Only `Choices` differ: head, LPO and evaluation are the same as in the other experiments.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from minilpo.config import LPOConfig
from minilpo.decoding.choices import FirstTokens
from minilpo.evaluation.measure import learned_constant, measure_fixed, prompts_to_measure
from minilpo.evaluation.statistics import bootstrap_interval
from minilpo.evaluation.summary import best_constants, best_per_kind
from minilpo.experiments.base import Finding, Numbers, Row, compared
from minilpo.experiments.figures import draw_bars, draw_line
from minilpo.experiments.lab import Lab
from minilpo.machine.text import decimal
from minilpo.rivals.think_or_answer import ANSWER, KINDS, THINK, ThinkOrAnswer
from minilpo.run import processes
from minilpo.run.begin import pretraining_prompts
from minilpo.seeds import torch_generator
from minilpo.show import plots
from minilpo.training import draw_prompts

PAPER = (
    "(not in the paper) no temperature is chosen, but whether to think step by step or to answer "
    "at once, with a price per word"
)
STEPS, DEMONSTRATIONS = 3000, 48_000  # at most, for the language model of this task
WORDS = {"think": THINK, "answer": ANSWER}  # with which a response begins, by the choice
CONSTANTS = ("best constant", "learned constant")  # the same choice for all prompts
OTHERS = ("best per number of steps", "head by best/worst")
# Shares of right answers at which the right choice depends on the prompt.
SURE, UNSURE = 0.95, 0.6


def measure(lab: Lab) -> Numbers:
    """Measures right answers, rewards and choices, by the number of steps of a prompt."""
    own, task = lab.apart(ThinkOrAnswer.name, STEPS, DEMONSTRATIONS), ThinkOrAnswer()
    first = own.lm.tokenizer.ids_of(f" {word}" for word in WORDS.values())
    choices = FirstTokens(first, list(WORDS))
    # As many responses as for other heads of one task, but from four times the prompts: a choice
    # always writes the same, so a quarter of the samples shows both.
    lpo = replace(own.config.lpo, samples=max(2, own.config.lpo.samples // 4))
    size = {"prompts": lpo.prompts, "samples": lpo.samples}
    asked: dict[str, Any] = {"tasks": (task.name,), "choices": choices, **size}
    # A wrong answer costs far more than some words, so pairs count by how much the rewards differ.
    # Best against worst, for comparison, counts only which choice is the better one.
    head, other_head = own.head(**asked, pairs="gap"), own.head(**asked, pairs="best_worst")

    # A response by both choices to each prompt, and the share of right ones by choice and kind.
    measured: Numbers = {}
    right: Numbers = {}
    for split in ("train", "test"):
        prompts = prompts_to_measure([task], split, own.config.evaluation, own.seed)
        generator = torch_generator(own.seed, f"think or answer {split}")
        of_split = measure_fixed(own.lm, prompts, choices, generator, respond=processes.respond)
        responses = np.array(of_split.fixed.responses).reshape(-1, len(WORDS))
        measured[split], right[split] = of_split, {}
        for name, texts in zip(WORDS, responses.T.tolist(), strict=True):
            pairs = zip(of_split.texts, texts, strict=True)
            is_right = np.array([task.is_right(*pair) for pair in pairs])
            right[split][name] = by_kind(is_right, of_split.kinds)

    train, test = measured["train"], measured["test"]
    rollout, rewards = own.adaptive(head.greedy, test)
    thinks = rollout.decisions.choice_ids[:, 0].numpy() == choices.names.index("think")
    fixed, (best, of_task) = test.fixed_rewards, best_constants(train)
    of_kind = best_per_kind(train, of_task)
    per_kind = [of_kind.get((task.name, kind), best) for kind in test.kinds.tolist()]
    others = {
        "best constant": fixed[:, best],
        "learned constant": fixed[:, learned_constant(head.constant)],
        "best per number of steps": fixed[np.arange(len(thinks)), per_kind],
        "head by best/worst": own.adaptive(other_head.greedy, test)[1],
    }
    earned = {**dict(zip(choices.names, fixed.T, strict=True)), "head": rewards}
    rng, resamples = np.random.default_rng(own.seed), own.config.evaluation.resamples
    return {
        "right": right,
        "reward": {name: by_kind(values, test.kinds) for name, values in earned.items()},
        "thinks": by_kind(thinks, test.kinds),
        "best_constant": choices.names[best],
        "mean": {name: float(r.mean()) for name, r in {**others, "head": rewards}.items()},
        "gain_ci95": {
            name: bootstrap_interval(rewards - other, test.names, resamples, rng)
            for name, other in others.items()
        },
        "seen_in_pretraining": n_seen(own, lpo, [*train.texts, *test.texts]),
    }


def by_kind(values: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    """Averages over the prompts of each kind that there is."""
    return {kind: float(values[kinds == kind].mean()) for kind in KINDS if kind in kinds}


def n_seen(lab: Lab, config: LPOConfig, prompts: list[str]) -> int:
    """Counts which of these prompts and of LPO's pretraining has shown.

    An answer at once to one of them might be known by heart.
    """
    rounds, held_out = draw_prompts(lab.run.tasks, config, lab.seed)
    of_lpo = [prompt.text for part in (*rounds, held_out) for prompt in part]
    return len(pretraining_prompts(lab.run) & {*prompts, *of_lpo})


def columns(by_kind: dict[str, np.ndarray]) -> np.ndarray:
    """Stacks numbers by kind of prompt, of the kinds that every seed has measured: (S, kinds)."""
    return np.column_stack([*by_kind.values()])


def conclude(found: Numbers) -> Finding:
    """Says what the head gains, and whether every seed shows that the right choice depends."""
    kinds, thinks = [*found["thinks"]], columns(found["thinks"])
    at_once, thought = (columns(found["right"]["test"][name]) for name in ("answer", "think"))
    shares = {"right at once": at_once, "right after thinking": thought, "head thinks": thinks}
    rows = []
    for label, values in shares.items():
        rows += [Row(f"{label}, {kind} (%)", 100 * values[:, k]) for k, kind in enumerate(kinds)]
    mean, seen = found["mean"], found["seen_in_pretraining"]
    rows += [Row(f"reward: {name}", values) for name, values in mean.items()]
    names = (*CONSTANTS, *OTHERS)
    gains = {name: Row(f"head - {name}", mean["head"] - mean[name]) for name in names}
    rows += [*gains.values(), Row("prompts that pretraining has shown", seen)]

    gain, others = gains["best constant"], {f"the {name}": gains[name] for name in OTHERS}
    # The conditions under which the right choice depends on the prompt, on every seed.
    easy, hard = at_once[:, 0], at_once[:, -1]
    above = [found["gain_ci95"][name][:, 0].min() > 0 for name in CONSTANTS]
    answer = "an answer at once is right on"
    claims = {
        f"thinking is right on at least {SURE:.0%}, with however many steps": thought.min() >= SURE,
        f"{answer} more than {SURE:.0%} with {kinds[0]}": easy.min() > SURE,
        f"{answer} less than {UNSURE:.0%} with {kinds[-1]}": hard.max() < UNSURE,
        "pretraining has shown none of the prompts": not seen.any(),
        "the head is above both constants, by intervals over prompts": all(above),
    }
    failed = [claim for claim, holds in claims.items() if not holds]
    sentence = (
        f"Against the best constant the head {gain.gains}. It thinks on "
        f"{thinks[:, 0].mean():.0%} of the prompts with {kinds[0]} and on "
        f"{thinks[:, -1].mean():.0%} of those with {kinds[-1]}. It is {compared(others)}. "
    )
    untrue = f"It is not true on every seed that {'; that '.join(failed)}."
    sentence += untrue if failed else f"On every seed {'; '.join(claims)}."
    return Finding(rows, not failed and gain.sign() > 0, sentence)


def draw(found: Numbers) -> plots.Figure:
    """Draws right answers, the share of thinking, and rewards by the number of steps."""
    fig, axes = plots.figure(1, 3)
    right, thinks, reward = axes.flat
    steps = [kind.split()[0] for kind in found["thinks"]]
    styles = {"think": plots.BLUE, "answer": plots.GREY, "head": plots.ORANGE}
    for name, colour in styles.items():
        style = {"label": "answer at once" if name == "answer" else name, "color": colour}
        draw_line(reward, np.arange(len(steps)), columns(found["reward"][name]), **style)
        if name in WORDS:
            of_name = 100 * columns(found["right"]["test"][name])
            draw_line(right, np.arange(len(steps)), of_name, **style)
    [thinking] = draw_bars(thinks, steps, {"": columns(found["thinks"])}, [plots.ORANGE])
    at_once = 100 * columns(found["right"]["test"]["answer"]).mean(0)
    gain = found["mean"]["head"] - found["mean"]["best constant"]
    first, last = 100 * thinking[[0, -1]]
    titles = {
        right: f"At once: {at_once[0]:.0f}% right, then {at_once[-1]:.0f}%",
        thinks: f"The head thinks: {first:.0f}% to {last:.0f}%",
        reward: f"Head - best constant: {decimal(gain.mean(), '+')}",
    }
    for ax, title in titles.items():
        plots.name_ticks(ax, steps)
        ax.set(xlabel="steps", ylabel="prompts (%)", ylim=(0, 105), title=title)
    right.set_ylabel("right answers (%)")
    reward.set(ylabel="mean reward", ylim=(0, 1.02))
    for ax in (right, reward):
        plots.legend(ax, loc="lower left")
    return fig

"""One response at a time, as `minilpo sample` shows it: by the head or at a fixed temperature."""

import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed, GreedyHead, Policy
from minilpo.decoding.rollout import Rollout
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.pretraining import Example
from minilpo.machine.text import one_line, printable
from minilpo.seeds import python_rng, torch_generator
from minilpo.show.report import strips_of
from minilpo.show.strip import Strip
from minilpo.tasks import Task, draw_prompts, grader_of, judge


def prompts_to_copy(tasks: Sequence[Task], n: int, seed: int) -> dict[str, list[str]]:
    """Draws n prompts of every task that training never saw, quoted as a terminal needs them."""
    prompts = {}
    for task in tasks:
        drawn = draw_prompts(task, n, "test", python_rng(seed, f"to copy {task.name}"))
        prompts[task.name] = [shlex.quote(printable(prompt)) for prompt in drawn]
    return prompts


def answers_while_training(
    lm: GPTLanguageModel, examples: Sequence[Example], n_steps: int, say: Callable[[str], object]
) -> Callable[[int], None]:
    """Makes a callback that shows an answer of the model's own after every tenth of its training.

    Each tenth answers another held-out prompt: stories are learned early, sums late. Answers have
    a random generator of their own, so the training stays the same to the bit. `callback` gets
    the number of steps done, `say` a line.
    """

    def callback(step: int) -> None:
        tenth = 10 * step // n_steps
        if tenth == 10 * (step - 1) // n_steps:
            return
        token_ids, n_prompt = examples[len(examples) * tenth // 11]
        prompt = lm.decode(list(token_ids[:n_prompt]))
        # If its numbers aren't finite, the next step says so better.
        with contextlib.suppress(ValueError):
            generator, policy = torch_generator(0, f"answer {tenth}"), Fixed(Temperatures([0.6]))
            rollout = generate(lm, [prompt], policy, generator, max_new_tokens=30)
            answer = one_line(rollout.responses[0], 70)
            say(f"pretraining {10 * tenth:3}%| {one_line(prompt, 70)} It answers: {answer}")

    return callback


@dataclass(frozen=True)
class Sampler:
    """Writes single responses, all from the same random numbers."""

    lm: GPTLanguageModel
    tasks: Sequence[Task]
    head: AdaptiveDecoder
    choices: Temperatures
    seed: int

    def with_head(self, prompt: str) -> tuple[Strip, list[str]]:
        """Writes a response by the head's most likely choices. Returns it, and lines about it."""
        rollout, reward = self._write(prompt, GreedyHead(self.head, self.choices))
        names, decisions, lines = self.choices.names, rollout.decisions, []
        [shown] = strips_of(rollout, names, self.lm)
        if self.head.level == "sequence":
            probs = self.head(decisions.features[0]).softmax(-1).tolist()
            shares = zip(names, probs, strict=True)
            parts = "; ".join(f"{name}: {100 * prob:.0f}%" for name, prob in shares)
            chosen = f"temperature {names[int(decisions.choice_ids[0, 0])]}"
            lines.append(f"chosen for the whole response: {chosen} (the head says {parts})")
        return shown, lines + reward

    def at(self, temperature: float, prompt: str) -> str:
        """Writes a response at a fixed temperature. Returns it with its reward, as text."""
        rollout, reward = self._write(prompt, Fixed(Temperatures([temperature])))
        response = printable(rollout.responses[0])
        return "\n".join([f"at a fixed temperature of {temperature:g}: {response}", *reward])

    def _write(self, prompt: str, policy: Policy) -> tuple[Rollout, list[str]]:
        """Writes a response. Returns it, and its reward as a line if a task knows the prompt."""
        rollout = generate(self.lm, [prompt], policy, torch_generator(self.seed, "sample"))
        task = grader_of(self.tasks, prompt)
        if task is None:
            return rollout, []
        reward = judge(task, prompt, rollout.responses[0])
        return rollout, [f"reward: {reward:.2f} ({task.name})"]

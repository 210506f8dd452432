"""Answers to the page's questions from a run: prompts, responses, next words, rewards.

No HTTP and no HTML here. Questions come from outside, so `Table.answer` checks all of them.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed, GreedyHead, Policy
from minilpo.decoding.rollout import Rollout
from minilpo.decoding.sampling import token_probs
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.machine.text import one_line, printable
from minilpo.seeds import python_rng, torch_generator
from minilpo.show.report import strips_of
from minilpo.show.strip import background
from minilpo.tasks import Task, draw_prompts, grader_of, judge

Answer = dict[str, Any]  # as it goes into JSON

QUESTIONS = ("about", "prompts", "write", "place", "rewards")
N_PROMPTS = 12  # to pick from, per task
N_SAMPLES = 20  # responses whose rewards are compared
N_WORDS = 12  # next words that are shown one by one
LONGEST_PROMPT = 2000  # characters
COLDEST, HOTTEST = 0.01, 2.0  # temperatures that can be asked for, besides 0
LARGEST_SEED = 999_999
# Arguments that may be null, and whose limits they have otherwise.
OPTIONAL = {"picked_from": "task", "fixed": "temperature", "taken": "taken"}


class Table:
    """Answers questions about a trained head and its language model.

    Prompts of the tasks can be picked, and their rewards are shown. `name` is the run's.
    """

    def __init__(
        self,
        lm: GPTLanguageModel,
        tasks: Sequence[Task],
        head: AdaptiveDecoder,
        choices: Temperatures,
        name: str,
    ):
        self.lm, self.head, self.choices, self.name = lm, head, choices, name
        self.tasks = {task.name: task for task in tasks}
        n, size = lm.max_length, lm.tokenizer.vocab_size
        self.limits: dict[str, tuple[str, Callable[[Any], bool]]] = {
            "task": (f"one of {', '.join(self.tasks)}", lambda v: v in list(self.tasks)),
            "prompt": (f"a text with a word, at most {LONGEST_PROMPT} characters", _is_prompt),
            "temperature": (f"0, or from {COLDEST} to {HOTTEST:g}", _is_temperature),
            "seed": (f"a whole number from 0 to {LARGEST_SEED:,}", _is_below(LARGEST_SEED + 1)),
            "token_ids": (
                f"a list of at most {n} whole numbers below {size}",
                lambda v: isinstance(v, list) and len(v) <= n and all(map(_is_below(size), v)),
            ),
            "taken": (f"a whole number from 0 to {size - 1}", _is_below(size)),
        }

    def answer(self, question: str, asked: Answer) -> Answer:
        """Answers one of `QUESTIONS`: calls the method of that name with the arguments `asked`.

        Raises ValueError if there is no such question, an argument is missing, unknown or out of
        its limits, or the language model or the task can't do what is asked.
        """
        if question not in QUESTIONS:
            raise ValueError(f"a question must be one of {', '.join(QUESTIONS)}, got {question!r}")
        method = getattr(self, question)
        names = list(inspect.signature(method).parameters)
        if asked.keys() != set(names):
            wanted, got = ", ".join(names), ", ".join(asked)
            raise ValueError(f"{question} must be asked with [{wanted}], got [{got}]")
        for name, value in asked.items():
            required, fits = self.limits[OPTIONAL.get(name, name)]
            if name in OPTIONAL:
                required = f"null or {required}"
            if not (fits(value) or (value is None and name in OPTIONAL)):
                raise ValueError(f"{name} must be {required}, got {one_line(repr(value), 60)}")
        return method(**asked)

    # The questions

    def about(self) -> Answer:
        """Describes the run: name, level, temperatures and tasks."""
        pairs, temperatures = zip(self.choices.temperatures, self.choices.names, strict=True), []
        for k, (value, name) in enumerate(pairs):
            colour = background(k, len(self.choices))
            temperatures.append({"value": value, "name": name, "colour": colour})
        about = {"name": self.name, "level": self.head.level, "temperatures": temperatures}
        return {**about, "tasks": list(self.tasks)}

    def prompts(self, task: str) -> Answer:
        """Draws prompts that training never saw; fewer than `N_PROMPTS` if the task has few."""
        rng = python_rng(0, f"to play with {task}")
        # One by one: asked for twelve at once, a task with only ten would refuse.
        drawn = [draw_prompts(self.tasks[task], 1, "test", rng)[0] for _ in range(N_PROMPTS)]
        return {"prompts": list(dict.fromkeys(drawn))}

    def write(self, prompt: str, picked_from: str | None, fixed: float | None, seed: int) -> Answer:
        """Writes one response, word by word; `minilpo sample` with that seed writes the same.

        Args:
            prompt: from the list, or typed.
            picked_from: the task whose list it is from; None if it was typed.
            fixed: the temperature of all words; None if the head decides.
            seed: of the sampling.
        """
        rollout = self._generate(prompt, fixed, seed, 1)
        options = self._options(fixed)
        [strip] = strips_of(rollout, options.names, self.lm)
        token_ids = rollout.token_ids[0].tolist()
        words = []
        for place, (piece, k) in enumerate(strip.words()):
            word = {"text": _label(piece), "has_space": piece[:1].isspace()}
            word |= {"temperature": options.temperatures[k], "name": options.names[k]}
            word |= {"colour": self._colour(k, fixed), "token_id": token_ids[place]}
            words.append(word)
        grader = self._grader(prompt, picked_from)
        reward = judge(grader, prompt, rollout.responses[0]) if grader else None
        return {"words": words, "reward": reward, "task": grader.name if grader else None}

    @torch.inference_mode()
    def place(
        self, prompt: str, token_ids: list[int], taken: int | None, temperature: float
    ) -> Answer:
        """Computes the probabilities of the next word (Eq. 2) at a place in a response.

        Args:
            prompt: of the response.
            token_ids: of the response, up to the place.
            taken: the token that was written there, which the answer always shows; or None.
            temperature: of the probabilities.

        Returns:
            The likeliest words, the sum of all others, and the head's probability of each of its
            temperatures; None for these within a response at sequence level, where it isn't asked.
        """
        [read] = self.lm.encode([prompt])
        if len(read) + len(token_ids) > self.lm.max_length:
            raise ValueError(
                f"a prompt and its response must fit into the model's {self.lm.max_length} tokens, "
                f"got {len(read) + len(token_ids)}; shorten the prompt"
            )
        batch = self.lm.prefill([read + token_ids], n_samples=1, max_new_tokens=1)
        logits = batch.logits[0].float()  # (V,)
        probs = token_probs(logits, torch.tensor(temperature))
        # By their logits: the order is the same at every temperature, so bars keep their places.
        order = logits.argsort(descending=True, stable=True).tolist()
        shown = order[:N_WORDS]
        if taken is not None and taken not in shown:
            shown.append(taken)
        others = probs.clone()
        others[shown] = 0.0
        is_asked = self.head.level == "token" or not token_ids
        head_probs = self.head(batch.hidden_states[0]).softmax(-1).tolist() if is_asked else None
        return {
            "words": [self._word(k, probs[k].item(), k == taken) for k in shown],
            "rest": others.sum().item(),
            "n_rest": len(order) - len(shown),
            "head": head_probs,
        }

    def rewards(
        self, prompt: str, picked_from: str | None, fixed: float | None, seed: int
    ) -> Answer:
        """Rewards `N_SAMPLES` responses; the arguments are those of `write`."""
        grader = self._grader(prompt, picked_from)
        if grader is None:
            raise ValueError(
                "a task must know the prompt to reward responses, but none does; "
                "pick one of its prompts"
            )
        rollout = self._generate(prompt, fixed, seed, N_SAMPLES)
        return {"rewards": [judge(grader, prompt, response) for response in rollout.responses]}

    def _generate(self, prompt: str, fixed: float | None, seed: int, n_samples: int) -> Rollout:
        options = self._options(fixed)
        policy: Policy = GreedyHead(self.head, options) if fixed is None else Fixed(options)
        generator = torch_generator(seed, "sample")
        return generate(self.lm, [prompt], policy, generator, n_samples=n_samples)

    def _options(self, fixed: float | None) -> Temperatures:
        return self.choices if fixed is None else Temperatures([fixed])

    def _grader(self, prompt: str, picked_from: str | None) -> Task | None:
        """Finds the task that rewards responses to a prompt, if there is one."""
        if picked_from is not None:
            return self.tasks[picked_from]
        return grader_of(self.tasks.values(), prompt)

    def _colour(self, k: int, fixed: float | None) -> str:
        """Picks the colour of choice k, or of the run's first choice that is as hot as `fixed`."""
        scale = self.choices.temperatures
        if fixed is not None:
            k = min(sum(temperature < fixed for temperature in scale), len(scale) - 1)
        return background(k, len(scale))

    def _word(self, token_id: int, prob: float, is_taken: bool) -> Answer:
        [piece] = self.lm.tokenizer.pieces([token_id])
        text = "(end)" if token_id in self.lm.end_ids else _label(piece)
        return {"text": text, "prob": prob, "taken": is_taken}


def _is_below(bound: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value < bound


def _is_temperature(value: Any) -> bool:
    return type(value) in (int, float) and (value == 0 or COLDEST <= value <= HOTTEST)


def _is_prompt(value: Any) -> bool:
    # Half of a pair of surrogates can't be encoded.
    is_text = isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)
    return is_text and bool(value.strip()) and len(value) <= LONGEST_PROMPT


def _label(piece: str) -> str:
    """Makes the text of a token visible, also of a line break or a space."""
    return printable(piece.strip() or piece.strip(" ") or "␣")

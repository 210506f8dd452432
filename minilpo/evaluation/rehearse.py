"""The whole work once in small, so that somebody's own task fails before it and not after it."""

from collections.abc import Sequence
from functools import partial

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import EvaluationConfig, ModelConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import respond
from minilpo.decoding.policies import GreedyHead, SampledHead
from minilpo.decoding.rollout import choice_shares, quality_and_constraint
from minilpo.evaluation.evaluate import evaluate
from minilpo.evaluation.measure import prompts_to_measure
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.lm.model import GPT
from minilpo.lm.tokenizer import Tokenizer
from minilpo.machine.text import named
from minilpo.preferences import constrained_pairs
from minilpo.seeds import torch_generator
from minilpo.tasks import Task

FEW = EvaluationConfig(
    test_prompts=2, samples_per_prompt=1, selection_prompts=2, ood_prompts=1, resamples=100
)
TOKENS = 4  # of each response


def rehearse(tasks: Sequence[Task], choices: Temperatures, level: str) -> None:
    """Generates, scores, forms pairs, measures and sums up, with a tiny untrained model.

    Raises ValueError if any of that fails: what a task can be asked for alone, `try_out` has asked.
    """
    try:
        splits = "train", "test", "ood"
        parts = {split: prompts_to_measure(tasks, split, FEW, 0) for split in splits}
        texts = [text for part in parts.values() for text in part.texts]
        tokenizer = Tokenizer.train(texts)
        longest = max(map(len, tokenizer.encode_batch(texts)))  # in tokens, without the end mark
        size = ModelConfig(tokenizer.vocab_size, 1, 1, 8, max(8, longest + TOKENS + 2))
        lm = GPTLanguageModel(GPT(size, torch_generator(0, "model")), tokenizer)
        head = AdaptiveDecoder(8, len(choices), level)
        short, generator = partial(respond, max_new_tokens=TOKENS), torch_generator(0, "rehearsal")
        prompts = parts["train"].prompts
        rollout, rewards = short(lm, prompts, SampledHead(head, choices), generator, n_samples=4)
        quality, rule = quality_and_constraint(rollout, parts["train"].tasks, rewards)
        pairs = constrained_pairs(quality, rule, generator)
        choice_shares(rollout, pairs.chosen, prompts, len(choices))
        evaluate(lm, tasks, GreedyHead(head, choices), FEW, 0, respond=short)
    except ValueError:
        raise
    except Exception as error:
        names = ", ".join(task.name for task in tasks)
        raise ValueError(
            f"--tasks must go through training and evaluation, but a rehearsal with {names} raised "
            f"{named(error)}; derive the class from minilpo.tasks.Task, as in minilpo/tasks/task.py"
        ) from error

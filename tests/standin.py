"""Stand-ins for a language model and for tasks, where a test is about what is done with the responses and not about text."""

from types import SimpleNamespace

import torch
from torch import nn

from minilpo.adaptive_decoder import Rule
from minilpo.rollout import Rollout

CHOICES = [0.0, 0.5, 1.0]
SEP, WORD, STOP = 3, 5, 9


class Warmth:
    """Rewards a response by the temperatures that wrote it, which is all that `Writer` says: warm is good, or cold."""

    def __init__(self, name, warm):
        self.name, self.warm = name, warm

    def prompt(self, rng):
        return f"{self.name} {rng.randrange(1000)}"

    def reward(self, prompt, response):
        mean = sum(map(float, response.split())) / len(response.split())
        return mean if self.warm else 1 - mean


class Writer:
    """Takes the place of `generate`: each response is its temperatures, drawn from a head that sees nothing but the task.

    A response is a word, a full stop and a word. What was asked for is in `calls` and `heads`, what was written in `texts`.
    """

    def __init__(self):
        self.calls, self.heads, self.texts = [], [], []

    def __call__(self, model, tokenizer, prompts, head, generator, *, n_samples=1, selection="greedy", progress=None):
        self.calls.append((model, tokenizer, list(prompts), generator.initial_seed(), n_samples, selection))
        self.heads.append(head)
        R, S = len(prompts) * n_samples, 1 if head.level == "sequence" else 3
        states = torch.stack([torch.randn(16, generator=torch.Generator().manual_seed(len(p.split()[0]))) for p in prompts])
        states = states.repeat_interleave(n_samples * S, 0)
        if isinstance(head, Rule):
            read = [torch.full((R,), token_id) for token_id in (SEP, WORD, STOP)[:S]]
            ids = torch.stack([head.choose(torch.arange(R), last) for last in read], 1)
        else:
            ids = head.choose(states, selection, torch.rand(len(states), generator=generator)).view(R, S)
        self.texts.append([" ".join(f"{head.temperature_choices[k]:g}" for k in row) for row in ids.tolist()])
        if progress:
            progress(R)
        return Rollout(
            prompts=list(prompts),
            n_samples=n_samples,
            responses=self.texts[-1],
            token_ids=torch.tensor([[WORD, STOP, WORD]] * R),
            response_mask=torch.ones(R, 3, dtype=torch.bool),
            hidden_states=None if isinstance(head, Rule) else states,
            temperature_ids=ids,
            decision_mask=torch.ones(R, S, dtype=torch.bool),
            temperature_choices=head.temperature_choices,
        )


class Model(nn.Module):
    """As much of a language model as is looked at where `Writer` writes."""

    def __init__(self):
        super().__init__()
        self.token_embedding, self.config = nn.Embedding(10, 16), SimpleNamespace(n_embd=16)

    def logits(self, hidden_states):
        return hidden_states @ self.token_embedding.weight.T


def read(model, tokenizer, rollout):
    """Takes the place of `rollout.read`: what `Model` makes of each token."""
    return model.token_embedding(rollout.token_ids[rollout.response_mask].long())


class Words:
    """As much of a tokenizer."""

    sep_id = SEP

    def ids_of(self, pieces):
        return [{".": STOP}[piece] for piece in pieces]


def rewards_of(tasks, prompts, texts):
    """The rewards of as many responses to each prompt, whose first word is the name of its task."""
    of_name, n_samples = {task.name: task for task in tasks}, len(texts) // len(prompts)
    return [of_name[prompts[r // n_samples].split()[0]].reward(prompts[r // n_samples], text) for r, text in enumerate(texts)]

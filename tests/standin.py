"""Stand-ins for a language model and for tasks, where a test isn't about text.

They are for tests about what is done with responses.
"""

import copy
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions
from minilpo.decoding.policies import Step
from minilpo.decoding.rollout import Rollout, score
from minilpo.evaluation.measure import Compared
from minilpo.lm.language_model import GPTLanguageModel
from minilpo.tasks import Prompt, Task
from tests.conftest import CHOICES, seeded

N_TOKENS, SEP, WORD, STOP, EOS = 10, 3, 5, 9, 1


class Warmth(Task):
    """Rewards a response by the temperatures that wrote it: warm is good, or cold.

    That is all that `Writer` says.
    """

    def __init__(self, name, warm):
        self.name, self.warm = name, warm

    def prompt(self, rng):
        return f"{self.name} {rng.randrange(1000)}"

    def reward(self, prompt, response):
        mean = sum(map(float, response.split())) / len(response.split())
        return mean if self.warm else 1 - mean


class Varied(Task):
    """Another task's prompts; the more different words, up to so many, the better."""

    name = "varied"

    def __init__(self, task, most):
        self.prompt, self.most = task.prompt, most

    def reward(self, prompt, response):
        return min(1.0, len(set(response.split())) / self.most)


class Writer:
    """Takes the place of `generate`: each response is the names of the choices it was written by.

    A head sees nothing but the task. A response is a word, a full stop and a word; at token level
    each of them is written by a choice of its own. What was asked for is in `calls`, as (lm,
    prompts, name of the policy's class, seed, n_samples); the policies are in `policies`, what was
    written in `texts`.
    """

    def __init__(self):
        self.calls, self.policies, self.texts = [], [], []

    def respond(self, lm, prompts, policy, generator, **options):
        """Takes the place of `respond`."""
        rollout = self(lm, [prompt.text for prompt in prompts], policy, generator, **options)
        return rollout, score(rollout, [prompt.task for prompt in prompts])

    def __call__(self, lm, prompts, policy, generator, *, n_samples=1, progress=None, **limits):
        asked = type(policy).__name__, generator.initial_seed(), n_samples
        self.calls.append((lm, list(prompts), *asked))
        self.policies.append(policy)
        R, S = len(prompts) * n_samples, 1 if policy.level == "sequence" else 3
        states = torch.stack([state_of(prompt) for prompt in prompts])
        states = states.repeat_interleave(n_samples, 0)  # (R, C)
        uniforms, ids, features = torch.rand(R, S, generator=generator), [], []
        policy.start(R)
        for s, last in enumerate((SEP, WORD, STOP)[:S]):
            logits, read = torch.zeros(R, N_TOKENS), torch.full((R,), last)
            step = Step(torch.arange(R), states, logits, read, torch.tensor(s), uniforms[:, s])
            ids.append(policy.choose(step))
            features.append(policy.features(step))
        ids = torch.stack(ids, 1)  # (R, S)
        names = policy.choices.names
        self.texts.append([" ".join(names[k] for k in row) for row in ids.tolist()])
        if progress:
            progress(R)
        mask = torch.ones(R, S, dtype=torch.bool)
        return Rollout(
            prompts=list(prompts),
            n_samples=n_samples,
            responses=self.texts[-1],
            token_ids=torch.tensor([[WORD, STOP, WORD]] * R),
            response_mask=torch.ones(R, 3, dtype=torch.bool),
            decisions=Decisions(torch.stack(features, 1).flatten(0, 1), ids, mask),
        )


def state_of(prompt):
    """The hidden state after a prompt, (C,): only the length of its first word counts."""
    return torch.randn(16, generator=torch.Generator().manual_seed(len(prompt.split()[0])))


class Model(nn.Module):
    """As much of a transformer as is looked at where `Writer` writes. It sees one token only."""

    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(N_TOKENS, 16)
        self.config = SimpleNamespace(n_embd=16, block_size=20)

    def forward_at(self, token_ids, wanted):
        return self.token_embedding(token_ids[wanted])

    def logits(self, hidden_states):
        return hidden_states @ self.token_embedding.weight.T


class Words:
    """As much of a tokenizer. Each word of a prompt is a token, one of two."""

    pad_id, sep_id, eos_id = 0, SEP, EOS

    def ids_of(self, pieces):
        return [{".": STOP}[piece] for piece in pieces]

    def encode_batch(self, texts):
        return [[7 + len(word) % 2 for word in text.split()] for text in texts]


def language_model(seed=0):
    """`Model` and `Words` as one."""
    model, generator = Model(), torch.Generator().manual_seed(seed)
    nn.init.normal_(model.token_embedding.weight, generator=generator)
    return GPTLanguageModel(model, Words())


def head_of(level="token", kind=AdaptiveDecoder, seed=0):
    """A head that isn't uniform, for `CHOICES`."""
    head = kind(16, len(CHOICES), level, n_hidden=8, generator=seeded(seed))
    nn.init.normal_(head.mlp[-1].weight, generator=seeded(seed + 1))
    return head


def same(a, b):
    """Tells whether two modules, or states of modules, are equal to the bit."""
    a, b = (x if isinstance(x, dict) else x.state_dict() for x in (a, b))
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def kept_in(states):
    """A callback that keeps all that is needed to go on."""
    return lambda state, *_: states.append(copy.deepcopy(state.state_dict()))


def rewards_of(tasks, prompts, texts):
    """The rewards of as many responses to each prompt, whose first word is the name of its task."""
    of_name, n_samples = {task.name: task for task in tasks}, len(texts) // len(prompts)
    return [
        of_name[prompts[r // n_samples].split()[0]].reward(prompts[r // n_samples], text)
        for r, text in enumerate(texts)
    ]


def compared(task, prompts, fixed, adaptive):
    """By each of two options one response, and one by the head, to each of two prompts: texts."""
    return Compared(
        prompts=[Prompt(text, task) for text in prompts],
        fixed=SimpleNamespace(n_samples=2, responses=fixed),
        places=np.array([[0], [1]]),
        fixed_samples=np.zeros((2, 2, 1)),
        adaptive=SimpleNamespace(n_samples=1, responses=adaptive),
        adaptive_samples=np.zeros((2, 1)),
        random_rewards=np.zeros(2),
    )

"""Our language model by its interface, and another one behind the same interface."""

import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import ByPlace, Fixed, GreedyHead, MixedHead, SampledHead
from minilpo.decoding.rollout import marginal_decisions, reread
from minilpo.lpo import train_lpo, training_of
from minilpo.tasks import Task
from tests.conftest import CHOICES, seeded
from tests.gpt2_weights import as_transformers_weights

PROMPTS = [
    "Tell me a story of three sentences about a fox in the forest.",
    "Mia has 7 apples. Then Tom buys 5 more. 3 of them get lost. How many apples are left?",
    "Mia has 7 apples.",
]


@pytest.fixture
def lm(lm):
    """Ours, in double precision: two ways to compute the same draw the same words. Responses end
    at different times.
    """
    end = lm.model.double().token_embedding.weight[lm.tokenizer.eos_id]
    lm.model.norm.bias += 4.5 * end / (end @ end)
    return lm


def head_of(level):
    """A head that isn't uniform."""
    head = AdaptiveDecoder(16, len(CHOICES), level, n_hidden=8, generator=seeded(1))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=seeded(2))
    return head.double()


class Adapter:
    """transformers' GPT-2 as a `LanguageModel`, with our weights and our tokenizer."""

    def __init__(self, gpt2, ours):
        self.gpt2, self.encode, self.decode = gpt2, ours.encode, ours.decode
        self.end_ids, self.sentence_starts = ours.end_ids, ours.sentence_starts
        self.max_length = gpt2.config.n_positions

    @torch.inference_mode()
    def read(self, prompts, n_samples, max_new_tokens):
        return Texts(self, [list(prompt) for prompt in prompts for _ in range(n_samples)])

    def reread(self, prompts, token_ids, response_mask):
        states, logits = [], []
        for prompt, row, mask in zip(prompts, token_ids, response_mask, strict=True):
            h, scores = self.look([*prompt, *row[mask].tolist()])
            states.append(h[len(prompt) - 1 : -1])
            logits.append(scores[len(prompt) - 1 : -1])
        return torch.cat(states), torch.cat(logits)

    def look(self, token_ids):
        """Hidden states and logits after each token of a text."""
        found = self.gpt2(torch.tensor([token_ids]), output_hidden_states=True)
        return found.hidden_states[-1][0], found.logits[0]


class Texts:
    """A `Batch` without a cache: each text is read anew at every step."""

    def __init__(self, adapter, texts):
        self.adapter, self.texts = adapter, texts
        self._look()

    def step(self, token_ids):
        for text, token_id in zip(self.texts, token_ids.tolist(), strict=True):
            text.append(token_id)
        self._look()

    def select(self, rows):
        self.texts = [self.texts[row] for row in rows.tolist()]

    def _look(self):
        last = [[found[-1] for found in self.adapter.look(text)] for text in self.texts]
        self.hidden_states, self.logits = (torch.stack(part) for part in zip(*last, strict=True))


@pytest.fixture
def other(lm):
    transformers = pytest.importorskip("transformers")
    shape = lm.model.config
    config = transformers.GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.block_size,
        n_embd=shape.n_embd,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        bos_token_id=None,
        eos_token_id=None,
    )
    gpt2 = transformers.GPT2LMHeadModel(config).double().eval().requires_grad_(False)
    weights = as_transformers_weights(lm.model)
    # Their output layer has no weights of its own to differ: it is tied to the embedding, as ours.
    gpt2.load_state_dict(weights)
    return Adapter(gpt2, lm)


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("kind", [GreedyHead, SampledHead, MixedHead])
def test_another_library_behind_the_interface_writes_the_same_tokens(lm, other, level, kind):
    policy = kind(head_of(level), CHOICES)
    options = {"n_samples": 5, "max_new_tokens": 12}
    ours, theirs = (generate(any_, PROMPTS, policy, seeded(3), **options) for any_ in (lm, other))
    lengths = ours.response_mask.sum(1)
    assert len(set(lengths.tolist())) > 2 and lengths.min() < 12  # some end early
    assert torch.equal(ours.token_ids, theirs.token_ids)
    assert torch.equal(ours.response_mask, theirs.response_mask)
    assert ours.responses == theirs.responses
    assert torch.equal(ours.decisions.choice_ids, theirs.decisions.choice_ids)
    torch.testing.assert_close(ours.decisions.features, theirs.decisions.features)
    for a, b in zip(reread(lm, ours), reread(other, theirs), strict=True):
        torch.testing.assert_close(a, b)
    constants = [marginal_decisions(any_, ours, CHOICES) for any_ in (lm, other)]
    torch.testing.assert_close(constants[0].choice_logprobs, constants[1].choice_logprobs)


def test_rules_made_by_hand_write_the_same_through_another_library(lm, other):
    for policy in (Fixed(CHOICES), ByPlace(CHOICES, [(0, 2), (2, 1)], lm.sentence_starts)):
        options = {"n_samples": 6, "max_new_tokens": 10}
        ours, theirs = (
            generate(any_, PROMPTS, policy, seeded(3), **options) for any_ in (lm, other)
        )
        assert torch.equal(ours.token_ids, theirs.token_ids)
        assert torch.equal(ours.decisions.choice_ids, theirs.decisions.choice_ids)


class Brief(Task):
    """Prompts of arithmetic; the fewer words, the better."""

    name = "brief"

    def __init__(self, task):
        self.prompt = task.prompt

    def reward(self, prompt, response):
        return 1 / (1 + len(response.split()))


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_head_is_trained_through_another_library_as_through_ours(lm, other, tasks, level):
    settings = dict(rounds=1, prompts=8, samples=4, epochs=3, validation_prompts=2, n_hidden=8)
    config = LPOConfig(**settings).resolved(level)
    logs, weights = [], []
    for any_ in (lm, other):
        head = AdaptiveDecoder(16, len(CHOICES), level, n_hidden=8, generator=seeded(1)).double()
        before = [parameter.clone() for parameter in head.parameters()]
        logs.append(train_lpo(any_, [Brief(tasks[0])], head, CHOICES, config, 0))
        weights.append([parameter.detach() for parameter in head.parameters()])
        assert not all(map(torch.equal, before, weights[-1]))
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert logs[0][0]["pairs"] == logs[1][0]["pairs"] > 0
    assert logs[0][0]["sampled_reward"] == logs[1][0]["sampled_reward"]
    assert logs[0][0]["chosen_share"] == logs[1][0]["chosen_share"]


def test_only_our_own_language_model_can_be_trained_too(other):
    config = LPOConfig(loss="eq9", train_lm=True)
    with pytest.raises(ValueError, match="must have a GPTLanguageModel to train, got Adapter"):
        training_of(other, head_of("token"), config)


@torch.inference_mode()
def test_reading_responses_again_is_reading_them_step_by_step(lm):
    """Hidden states and logits before each token, as `read`, `step` and `select` give them."""
    prompts = lm.encode(PROMPTS)
    lengths = [4, 1, 7, 2, 5, 3]
    R, T, N = 6, 7, 2
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    token_ids = torch.randint(3, lm.tokenizer.vocab_size, (R, T), generator=seeded(0)) * mask
    again = reread_of(lm, prompts, token_ids, mask)
    batch, rows = lm.read(prompts, N, T), torch.arange(R)
    for t in range(T):
        for place, row in enumerate(rows.tolist()):
            if mask[row, t]:
                states, logits = again[row, t]
                torch.testing.assert_close(batch.hidden_states[place], states)
                torch.testing.assert_close(batch.logits[place], logits)
        if t == T - 1:
            break
        if t % 2:  # rows leave at some times, and turn round
            keep = mask[rows, t + 1].nonzero()[:, 0].flip(0)
            batch.select(keep)
            rows = rows[keep]
        batch.step(token_ids[rows, t])
    assert len(rows) < R


def reread_of(lm, prompts, token_ids, mask):
    """What `reread` gives, by row and place."""
    repeated = [prompt for prompt in prompts for _ in range(2)]
    hidden_states, logits = lm.reread(repeated, token_ids.int(), mask)
    places = [tuple(place) for place in mask.nonzero().tolist()]
    assert len(places) == len(hidden_states) == len(logits)
    return {place: (hidden_states[i], logits[i]) for i, place in enumerate(places)}


def test_reading_again_passes_gradients_on_to_a_model_that_has_them(lm):
    prompts, mask = lm.encode(PROMPTS[:2]), torch.tensor([[True, True], [True, False]])
    token_ids = torch.tensor([[5, 6], [7, 0]])
    assert not any(part.requires_grad for part in lm.reread(prompts, token_ids, mask))
    lm.model.requires_grad_(True)
    hidden_states, logits = lm.reread(prompts, token_ids, mask)
    (hidden_states.sum() + logits.sum()).backward()
    assert all(parameter.grad is not None for parameter in lm.model.parameters())
    assert not lm.read(prompts, 1, 2).logits.requires_grad  # writing has none


def test_texts_become_tokens_and_tokens_texts(lm):
    tokenizer = lm.tokenizer
    for prompt, token_ids in zip(PROMPTS, lm.encode(PROMPTS), strict=True):
        assert token_ids == [*tokenizer.encode(prompt), tokenizer.sep_id]
        assert lm.decode(token_ids[:-1]) == prompt
    assert lm.end_ids == (tokenizer.eos_id,) and lm.max_length == lm.model.config.block_size
    assert tokenizer.pieces(list(lm.sentence_starts[1:])) == ["."]
    with pytest.raises(ValueError, match="Zebra"):
        lm.encode(["Zebra!"])


def test_each_sample_of_a_prompt_begins_where_the_prompt_ends(lm):
    """Row p * N + n is sample n of prompt p, whatever the padding."""
    prompts = lm.encode(PROMPTS)
    batch = lm.read(prompts, 3, 5)
    assert batch.hidden_states.shape == (9, 16)
    for p, prompt in enumerate(prompts):
        h = lm.model(torch.tensor([prompt]))[0, -1]
        for row in range(3 * p, 3 * p + 3):
            torch.testing.assert_close(batch.hidden_states[row], h)
            torch.testing.assert_close(batch.logits[row], lm.model.logits(h))


def test_a_model_in_half_precision_is_sampled_in_single_precision(lm):
    """Hundreds of tokens of like probability could not be told apart in 8 bits."""
    steps = []

    class Looked(SampledHead):
        def choose(self, step):
            steps.append(step)
            return super().choose(step)

    lm.model.to(torch.bfloat16)
    for level in ("sequence", "token"):
        policy = Looked(head_of(level).float(), Temperatures([0.5, 1.0, 2.0]))
        rollout = generate(lm, PROMPTS, policy, seeded(0), n_samples=4, max_new_tokens=20)
        assert rollout.decisions.features.dtype == torch.float32
        assert rollout.decisions.features.isfinite().all()
        for token_ids, mask, response in zip(
            rollout.token_ids, rollout.response_mask, rollout.responses, strict=True
        ):
            said = [i for i in token_ids[mask].tolist() if i not in lm.end_ids]
            assert response == lm.decode(said)
            assert all(0 <= i < lm.tokenizer.vocab_size for i in said)
        assert len(set(rollout.responses)) > 6
    assert {step.logits.dtype for step in steps} == {torch.float32}
    assert {step.hidden_states.dtype for step in steps} == {torch.float32}
    batch = lm.read(lm.encode(PROMPTS), 1, 4)
    assert batch.logits.dtype == batch.hidden_states.dtype == torch.bfloat16

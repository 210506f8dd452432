"""What a learner writes is what the library does: the solutions against the library's functions."""

import numpy as np
import pytest
import torch

from minilpo import exercises
from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import ModelConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.policies import GreedyHead, SampledHead, Step
from minilpo.decoding.sampling import draw, entropy, token_probs
from minilpo.evaluation.measure import Measured
from minilpo.evaluation.summary import best_constants
from minilpo.exercises.exercise import Draw
from minilpo.lm.model import GPT, Attention
from minilpo.lm.pretraining import language_model_loss
from minilpo.preferences import all_pairs, best_worst_pairs
from minilpo.tasks import Prompt, load_tasks

CONFIG = ModelConfig(vocab_size=11, n_layer=2, n_embd=8, n_head=1, block_size=12)
SEEDS = pytest.mark.parametrize("seed", range(3))


def close(value, other):
    torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6)


def head_with(seed, K=4):
    """A head whose last layer isn't zero, as if it had learned something."""
    head = AdaptiveDecoder(8, K, generator=torch.Generator().manual_seed(seed))
    torch.nn.init.normal_(head.mlp[-1].weight, generator=torch.Generator().manual_seed(seed + 1))
    return head


def step_with(hidden_states, uniforms):
    B = len(hidden_states)
    nothing = torch.zeros(B, dtype=torch.long)
    return Step(nothing, hidden_states, torch.zeros(B, 2), nothing, torch.tensor(0), uniforms)


# Lesson 1


@SEEDS
def test_where_the_mask_is_true_a_token_changes_the_models_hidden_state_and_nowhere_else(seed):
    random = Draw(seed)
    model, T = GPT(CONFIG, random.generator).double(), 6
    token_ids = random.integers(11, 1, T)
    changed = token_ids.repeat(T, 1)
    changed[range(T), range(T)] = (token_ids[0] + 1) % 11  # in row j, token j is another one
    with torch.no_grad():
        moved = (model(changed) - model(token_ids)).abs().amax(-1) > 1e-9  # (T, T): row j, place i
    assert torch.equal(moved.T, exercises.causal_mask.right(T))


@SEEDS
def test_attention_is_that_of_the_models_only_head(seed):
    random = Draw(seed)
    attention = Attention(CONFIG)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=random.generator)
    x = random.normal(3, 5, 8)
    with torch.no_grad():
        queries, keys, values = attention.qkv(x).chunk(3, -1)
        close(exercises.attention_head.right(queries, keys, values), attention.attend(x))


@SEEDS
def test_the_loss_of_a_response_is_that_of_pretraining(seed):
    random = Draw(seed)
    model = GPT(CONFIG, random.generator)
    token_ids, mask = random.integers(11, 4, 7), random.mask(4, 6).flip(1)
    with torch.no_grad():
        logits = model.logits(model(token_ids[:, :-1]))
        mine = exercises.response_cross_entropy.right(logits, token_ids[:, 1:], mask)
        close(mine, language_model_loss(model, token_ids, mask))


# Lesson 2


@SEEDS
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.0])
def test_temperature_softmax_is_token_probs(seed, temperature):
    logits = Draw(seed).normal(5, 7, scale=3.0)
    taus = torch.full((5,), temperature)
    close(exercises.temperature_softmax.right(logits, temperature), token_probs(logits, taus))


@SEEDS
def test_entropy_is_the_one_in_the_log_of_training(seed):
    logits = Draw(seed).normal(6, 4, scale=3.0)
    close(exercises.entropy.right(logits.softmax(-1)), entropy(logits))


@SEEDS
def test_draw_token_draws_what_the_library_draws(seed):
    random = Draw(seed)
    probs, uniforms = random.grid_probs(200, 9), random.integers(64, 200) / 64
    assert torch.equal(exercises.draw_token.right(probs, uniforms), draw(probs, uniforms))


# Lesson 3


@SEEDS
def test_the_best_constant_is_the_one_that_evaluation_reports(seed):
    random = Draw(seed)
    train, test = random.integers(3, 8, 5) / 4, random.uniform(6, 5)
    k, reward = exercises.best_constant.right(train, test)
    places = np.arange(train.shape[1])[:, None]
    rewards = train.numpy()[:, :, None]
    measured = Measured([Prompt("", *load_tasks(["math"]))] * 8, None, places, rewards)
    assert best_constants(measured) == (k, {"math": k})
    assert reward == pytest.approx(test.numpy().mean(0)[k], rel=1e-5)


# Lesson 4


@SEEDS
def test_head_logits_are_the_heads(seed):
    head, hidden_states = head_with(seed), Draw(seed).normal(3, 2, 8)
    layers = [(layer.weight, layer.bias) for layer in head.mlp if hasattr(layer, "weight")]
    with torch.no_grad():
        close(exercises.head_logits.right(hidden_states, layers), head(hidden_states))


@SEEDS
def test_the_greedy_choice_is_that_of_the_greedy_policy(seed):
    head, temperatures = head_with(seed), torch.tensor([0.0, 0.4, 0.8, 1.2])
    hidden_states = Draw(seed).normal(50, 8)
    policy = GreedyHead(head, Temperatures(temperatures.tolist()))
    with torch.no_grad():
        choice_ids = policy.choose(step_with(hidden_states, torch.zeros(50)))
        mine = exercises.greedy_choice.right(head(hidden_states), temperatures)
    assert torch.equal(mine, temperatures[choice_ids]) and len(mine.unique()) > 1


@SEEDS
def test_the_sampled_choice_is_that_of_the_sampling_policy(seed):
    random = Draw(seed)
    head, hidden_states, uniforms = head_with(seed), random.normal(50, 8), random.uniform(50)
    policy = SampledHead(head, Temperatures([0.0, 0.4, 0.8, 1.2]))
    with torch.no_grad():
        choice_ids = policy.choose(step_with(hidden_states, uniforms))
        mine = exercises.sampled_choice.right(head(hidden_states), uniforms)
    assert torch.equal(mine, choice_ids) and len(mine.unique()) > 1


@SEEDS
def test_the_mixture_is_the_one_that_tokens_are_drawn_from(seed):
    random, temperatures = Draw(seed), [0.0, 0.5, 1.0]
    logits, choice_logits = random.normal(6, 9, scale=2.0), random.normal(6, 3)
    mine = exercises.mixture_probs.right(logits, choice_logits, temperatures)
    weights = choice_logits.softmax(-1)
    close(mine, Temperatures(temperatures).mixture(logits, weights, torch.tensor(0)))


# Lesson 5


@SEEDS
def test_without_ties_the_best_and_the_worst_are_the_librarys(seed):
    random = Draw(seed)
    rewards = random.normal(20, 6)
    rewards[::4] = 0.5  # these prompts say nothing
    chosen, rejected, n_dropped = exercises.best_worst_pairs.right(rewards)
    pairs = best_worst_pairs(rewards, random.generator)
    assert torch.equal(chosen, pairs.chosen) and torch.equal(rejected, pairs.rejected)
    assert n_dropped == pairs.n_dropped == 5


@SEEDS
def test_with_ties_the_pairs_have_the_same_rewards_as_the_librarys(seed):
    random = Draw(seed)
    rewards = random.integers(3, 30, 4) / 2
    chosen, rejected, n_dropped = exercises.best_worst_pairs.right(rewards)
    pairs, of_row = best_worst_pairs(rewards, random.generator), rewards.flatten()
    assert torch.equal(of_row[chosen], of_row[pairs.chosen])
    assert torch.equal(of_row[rejected], of_row[pairs.rejected])
    assert n_dropped == pairs.n_dropped


@SEEDS
def test_all_better_pairs_are_the_librarys(seed):
    rewards = Draw(seed).integers(4, 7) / 4
    pairs = all_pairs(rewards[None])
    mine = exercises.all_better_pairs.right(rewards)
    assert sorted(mine) == sorted(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))

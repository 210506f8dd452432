"""What a learner writes is what the library does: the solutions against the library's functions."""

import math
import random

import numpy as np
import pytest
import torch

from minilpo import exercises
from minilpo.adaptive_decoder import AdaptiveDecoder, Decisions
from minilpo.config import LPOConfig, ModelConfig
from minilpo.decoding.choices import Temperatures
from minilpo.decoding.policies import ByPlace, GreedyHead, SampledHead, Step
from minilpo.decoding.sampling import draw, entropy, token_probs
from minilpo.evaluation.measure import Measured
from minilpo.evaluation.statistics import bootstrap_interval, seed_interval, win_points
from minilpo.evaluation.summary import best_constants
from minilpo.exercises.exercise import Draw
from minilpo.lm.model import GPT, Attention
from minilpo.lm.pretraining import language_model_loss
from minilpo.losses import choice_scores, latent_scores, nll_loss, preference_loss
from minilpo.lpo import fit
from minilpo.preferences import PreferencePairs, all_pairs, best_worst_pairs
from minilpo.tasks import Prompt, draw_prompts, judge, load_tasks, math_paths, try_out
from minilpo.tasks.base import sentences_of
from tests.exercises.test_graders import solution_of

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


# Lessons 6 to 10


def cases_of(exercise):
    return list(exercise.cases(Draw(5)))


@pytest.mark.parametrize("case", cases_of(exercises.eq10_loss))
def test_eq10_is_the_preference_loss_of_choice_scores(case):
    choice_logits, chosen_ids, rejected_ids, beta = case
    everywhere = torch.ones(len(chosen_ids), 1, dtype=torch.bool)
    scores = [
        choice_scores(choice_logits[:, None], ids[:, None], everywhere)
        for ids in (chosen_ids, rejected_ids)
    ]
    torch.testing.assert_close(exercises.eq10_loss.right(*case), preference_loss(*scores, beta))


@pytest.mark.parametrize("case", cases_of(exercises.eq10_gradient))
def test_the_closed_form_is_what_pytorch_differentiates(case):
    choice_logits, *rest = case
    choice_logits = choice_logits.clone().requires_grad_()
    exercises.eq10_loss.right(choice_logits, *rest).sum().backward()
    torch.testing.assert_close(exercises.eq10_gradient.right(*case), choice_logits.grad)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_at_the_optimum_the_mean_loss_is_smallest(share, beta):
    [best] = exercises.eq10_optimum.right(torch.tensor([share]), beta).tolist()
    at_best = mean_eq10_loss(best, share, beta)
    for other in (0.9 * best, best + 0.1 * (1 - best)):
        assert at_best < mean_eq10_loss(other, share, beta)


def mean_eq10_loss(p, share, beta):
    """Of choices of probabilities 1 - p and p, if the second wins a share of the pairs."""
    scores = torch.tensor([[math.log(1 - p), math.log(p)]], dtype=torch.float64)
    won = preference_loss(scores[:, 1], scores[:, 0], beta)
    lost = preference_loss(scores[:, 0], scores[:, 1], beta)
    return float(share * won + (1 - share) * lost)


@pytest.mark.parametrize("case", cases_of(exercises.choice_score))
def test_the_score_of_choices_is_the_library_s(case):
    torch.testing.assert_close(exercises.choice_score.right(*case), choice_scores(*case))


@pytest.mark.parametrize("case", cases_of(exercises.nll_loss))
def test_the_baseline_is_the_library_s(case):
    choice_logits, chosen_ids = case
    everywhere = torch.ones(len(chosen_ids), 1, dtype=torch.bool)
    scores = choice_scores(choice_logits[:, None], chosen_ids[:, None], everywhere)
    torch.testing.assert_close(exercises.nll_loss.right(*case), nll_loss(scores).mean())


def test_an_epoch_is_one_of_lpo_fit_with_a_linear_head():
    P, K, C, beta, learning_rate = 6, 3, 4, 0.7, 0.5
    draw = Draw(3)
    weight, hidden_states = draw.normal(K, C), draw.normal(P, C)
    chosen_ids, rejected_ids = draw.integers(K, P), draw.integers(K, P)
    head = AdaptiveDecoder(C, K)
    linear = torch.nn.Linear(C, K, bias=False)
    linear.weight.data.copy_(weight)
    head.mlp = torch.nn.Sequential(linear)
    decisions = Decisions(
        hidden_states.repeat(2, 1),
        torch.cat([chosen_ids, rejected_ids])[:, None],
        torch.ones(2 * P, 1, dtype=torch.bool),
    )
    rows = torch.arange(P)
    pairs = PreferencePairs(rows, rows + P, 0, torch.ones(P))
    config = LPOConfig(loss="eq10", beta=beta, epochs=1, pairs_per_batch=4)
    optimizer = torch.optim.SGD(head.parameters(), lr=learning_rate)
    fit(head, decisions, pairs, optimizer, config, draw_order())
    batches = list(torch.randperm(P, generator=draw_order()).split(4))
    expected = exercises.lpo_epoch.right(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    )
    torch.testing.assert_close(linear.weight.data, expected)


def draw_order():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("case", cases_of(exercises.win_rate))
def test_the_win_rate_is_the_mean_of_the_library_s_points(case):
    rewards, other = (part.numpy() for part in case)
    assert exercises.win_rate.right(*case) == pytest.approx(win_points(rewards, other).mean())


@pytest.mark.parametrize("case", cases_of(exercises.paired_bootstrap))
def test_the_bootstrap_is_the_library_s_up_to_its_noise(case):
    differences, n_resamples, generator = case
    names = np.array(["a"] * len(differences))
    rng = np.random.default_rng(0)
    interval = bootstrap_interval(differences.numpy(), names, n_resamples, rng)
    expected = exercises.paired_bootstrap.right(differences, n_resamples, generator)
    assert exercises.paired_bootstrap.agree(expected, tuple(interval), case)


def test_shuffling_shows_nothing_of_a_head_that_always_says_the_same():
    gain = exercises.shuffled_gain.right
    rewards, same = Draw(0).uniform(50, 3), torch.full((50,), 2)
    assert gain(rewards, same, draw_order()) == 0
    assert gain(rewards, rewards.argmax(-1), draw_order()) > 0


@pytest.mark.parametrize("case", cases_of(exercises.eq11_score))
def test_eq11_is_the_library_s_without_a_reference(case):
    expected = latent_scores(*case, uniform_reference=False)
    torch.testing.assert_close(exercises.eq11_score.right(*case), expected)


def test_the_rule_of_two_temperatures_is_that_of_by_place():
    words = "Ben ran home . Bella hid . The fox".split()
    ids = {word: i for i, word in enumerate(dict.fromkeys(["<sep>", *words]))}
    policy = ByPlace(Temperatures([0.2, 1.0]), [(0, 1)], [ids["<sep>"], ids["."]])
    before = torch.tensor([ids[word] for word in ["<sep>", *words[:-1]]])
    nothing = torch.zeros(len(words))
    step = Step(nothing.long(), nothing, nothing, before, nothing, nothing)
    chosen = [[0.2, 1.0][k] for k in policy.choose(step).tolist()]
    assert exercises.two_temperatures.right(words, 0.2, 1.0) == chosen


@pytest.mark.parametrize("case", cases_of(exercises.letter_reward))
def test_the_letter_is_looked_for_in_the_sentences_of_the_library(case):
    letter, response = case
    sentences = sentences_of(response)
    kept = sum(sentence.lower().startswith(letter.lower()) for sentence in sentences)
    expected = kept / len(sentences) if sentences else 0.0
    assert exercises.letter_reward.right(letter, response) == pytest.approx(expected)


def test_the_final_answer_of_a_demonstration_is_the_library_s():
    task, rng = math_paths.MathPaths(), random.Random(0)
    for prompt in draw_prompts(task, 20, "train", rng):
        text = task.demonstration(prompt, rng)
        assert exercises.final_answer.right(text) == math_paths.final_answer(text)


@pytest.mark.parametrize("case", cases_of(exercises.majority_vote))
def test_the_majority_is_the_library_s(case):
    assert exercises.majority_vote.right(*case) == math_paths.majority(*case)


@pytest.mark.parametrize("case", cases_of(exercises.vote_accuracy))
def test_the_accuracy_is_that_of_the_library_s_majorities(case):
    answers, right_answers = case
    hits = [
        math_paths.majority(votes) == right
        for votes, right in zip(answers, right_answers, strict=True)
    ]
    assert exercises.vote_accuracy.right(*case) == pytest.approx(np.mean(hits))


def test_the_solution_is_a_task_that_the_library_takes():
    task = solution_of(exercises.own_task)()
    try_out(task)
    assert len(draw_prompts(task, 3, "train", random.Random(0))) == 3
    assert judge(task, "Write three words.", "") == 0
    assert task.kind("Write three words.") == "word_count"


def test_a_lesson_goes_on_with_a_class_whether_it_was_written_or_not(capsys):
    class WordCountTask:
        def prompt(self, rng): ...

        def demonstration(self, prompt, rng): ...

        def reward(self, prompt, response): ...

    verdict = exercises.own_task.check(WordCountTask)
    assert verdict.passed is None
    task = verdict.function()
    assert (
        task.reward("Write two words.", task.demonstration("Write two words.", random.Random(0)))
        == 1
    )
    written = solution_of(exercises.own_task)
    assert exercises.own_task.check(written).function is written


@pytest.mark.parametrize("case", cases_of(exercises.experiment_conclusion))
def test_the_conclusion_is_that_of_the_library_s_interval(case):
    [differences] = case
    low, high = seed_interval(differences.double().mean(1).tolist())
    expected = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    assert exercises.experiment_conclusion.right(differences) == expected


def test_a_p_value_of_few_prompts_is_the_share_of_all_signs():
    differences = torch.tensor([3.0, 1.0, -1.0])  # the 8 sums are 5, 3, 3, 1 and their negatives
    p = exercises.permuted_p_value.right(differences, 20_000, draw_order())
    assert p == pytest.approx(6 / 8, abs=0.02)


@pytest.mark.parametrize("exercise", exercises.ALL, ids=lambda exercise: exercise.name)
def test_an_exercise_can_be_had_by_its_name(exercise):
    assert getattr(exercises, exercise.name) is exercise

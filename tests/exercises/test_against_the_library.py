"""The solutions do what the library does: a learner writes the library's own functions."""

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
from minilpo.exercises.trial import copied
from minilpo.lm.model import GPT, Attention
from minilpo.lm.pretraining import language_model_loss
from minilpo.losses import choice_scores, latent_scores, nll_loss, preference_loss
from minilpo.lpo import fit
from minilpo.preferences import PreferencePairs, all_pairs, best_worst_pairs
from minilpo.tasks import Prompt, draw_prompts, judge, load_tasks, math_paths, try_out
from minilpo.tasks.base import sentences_of
from tests.exercises.table import BY_NAME
from tests.exercises.test_graders import solution_of

CONFIG = ModelConfig(vocab_size=11, n_layer=2, n_embd=8, n_head=1, block_size=12)
SEEDS = pytest.mark.parametrize("seed", range(2))
NOTHING = torch.tensor(0)


def close(value, other):
    torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6)


def seeded():
    return torch.Generator().manual_seed(0)


# What the library computes, from the arguments of an exercise.


def scores_of(choice_logits, choice_ids):
    """Scores of responses with one decision each."""
    everywhere = torch.ones(len(choice_ids), 1, dtype=torch.bool)
    return choice_scores(choice_logits[:, None], choice_ids[:, None], everywhere)


def eq10(choice_logits, chosen_ids, rejected_ids, beta):
    scores = scores_of(choice_logits, chosen_ids), scores_of(choice_logits, rejected_ids)
    return preference_loss(*scores, beta)


def eq10_gradient(choice_logits, *rest):
    choice_logits = choice_logits.clone().requires_grad_()
    eq10(choice_logits, *rest).sum().backward()
    return choice_logits.grad


def bootstrap(differences, n_resamples, generator):
    names, rng = np.array(["a"] * len(differences)), np.random.default_rng(0)
    return tuple(bootstrap_interval(differences.numpy(), names, n_resamples, rng))


def kept_letters(letter, response):
    kept = [s.lower().startswith(letter.lower()) for s in sentences_of(response)]
    return sum(kept) / len(kept) if kept else 0.0


def vote_accuracy(answers, right_answers):
    majorities = list(map(math_paths.majority, answers))
    return np.mean([a == b for a, b in zip(majorities, right_answers, strict=True)])


def conclusion(differences):
    low, high = seed_interval(differences.double().mean(1).tolist())
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def pairs_of_one_prompt(rewards):
    pairs = all_pairs(rewards[None])
    return sorted(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))


LIBRARY = {
    "temperature_softmax": lambda logits, tau: token_probs(
        logits, torch.full(logits.shape[:-1], tau, dtype=logits.dtype)
    ),
    "entropy": lambda probs: entropy(probs.clamp(min=1e-30).log()),
    "draw_token": draw,
    "mixture_probs": lambda logits, choice_logits, temperatures: Temperatures(temperatures).mixture(
        logits, choice_logits.softmax(-1), NOTHING
    ),
    "all_better_pairs": pairs_of_one_prompt,
    "eq10_loss": eq10,
    "eq10_gradient": eq10_gradient,
    "choice_score": choice_scores,
    "nll_loss": lambda choice_logits, ids: nll_loss(scores_of(choice_logits, ids)).mean(),
    "win_rate": lambda mine, other: win_points(mine.numpy(), other.numpy()).mean(),
    "paired_bootstrap": bootstrap,
    "eq11_score": lambda *case: latent_scores(*case, uniform_reference=False),
    "letter_reward": kept_letters,
    "majority_vote": math_paths.majority,
    "vote_accuracy": vote_accuracy,
    "experiment_conclusion": conclusion,
}


@pytest.mark.parametrize("name", LIBRARY)
def test_the_solution_says_what_the_library_says_on_the_inputs_of_a_check(name):
    exercise = BY_NAME[name]
    for case in exercise.cases(Draw(5)):
        expected, got = LIBRARY[name](*copied(case)), exercise.right(*copied(case))
        assert not exercise.misfit(expected, got) and exercise.agree(expected, got, case), case


# The others need a model, a policy or a task of the library.


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


@SEEDS
def test_the_heads_logits_and_its_greedy_and_sampled_choices_are_the_librarys(seed):
    random = Draw(seed)
    head = AdaptiveDecoder(8, 4, generator=random.generator)
    # The last layer of a new head is zero. This one is as if it had learned something.
    torch.nn.init.normal_(head.mlp[-1].weight, generator=random.generator)
    layers = [(layer.weight, layer.bias) for layer in head.mlp if hasattr(layer, "weight")]
    hidden_states, uniforms = random.normal(50, 8), random.uniform(50)
    temperatures = torch.tensor([0.0, 0.4, 0.8, 1.2])
    choices = Temperatures(temperatures.tolist())
    step = Step(NOTHING, hidden_states, torch.zeros(50, 2), NOTHING, NOTHING, uniforms)
    with torch.no_grad():
        logits = head(hidden_states)
        close(exercises.head_logits.right(hidden_states, layers), logits)
        greedy = temperatures[GreedyHead(head, choices).choose(step)]
        sampled = SampledHead(head, choices).choose(step)
    assert torch.equal(exercises.greedy_choice.right(logits, temperatures), greedy)
    assert torch.equal(exercises.sampled_choice.right(logits, uniforms), sampled)
    assert len(greedy.unique()) > 1 and len(sampled.unique()) > 1


@SEEDS
@pytest.mark.parametrize("ties", [True, False])
def test_pairs_of_the_best_and_the_worst_have_the_rewards_of_the_librarys(seed, ties):
    random = Draw(seed)
    rewards = random.integers(3, 30, 4) / 2 if ties else random.normal(30, 4)
    rewards[::4] = 0.5  # these prompts say nothing
    chosen, rejected, n_dropped = exercises.best_worst_pairs.right(rewards)
    pairs, of_row = best_worst_pairs(rewards, random.generator), rewards.flatten()
    assert torch.equal(of_row[chosen], of_row[pairs.chosen])
    assert torch.equal(of_row[rejected], of_row[pairs.rejected])
    assert n_dropped == pairs.n_dropped >= 8
    assert ties or torch.equal(chosen, pairs.chosen) and torch.equal(rejected, pairs.rejected)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_at_the_optimum_the_mean_loss_is_smallest(share, beta):
    def mean_loss(p):
        """The second of two choices has the probability p, and wins a share of the pairs."""
        scores = torch.tensor([[math.log(1 - p), math.log(p)]], dtype=torch.float64)
        won = preference_loss(scores[:, 1], scores[:, 0], beta)
        lost = preference_loss(scores[:, 0], scores[:, 1], beta)
        return float(share * won + (1 - share) * lost)

    [best] = exercises.eq10_optimum.right(torch.tensor([share]), beta).tolist()
    assert mean_loss(best) < min(mean_loss(0.9 * best), mean_loss(best + 0.1 * (1 - best)))


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
    fit(head, decisions, pairs, optimizer, config, seeded())
    batches = list(torch.randperm(P, generator=seeded()).split(4))
    expected = exercises.lpo_epoch.right(
        weight, hidden_states, chosen_ids, rejected_ids, batches, beta, learning_rate
    )
    torch.testing.assert_close(linear.weight.data, expected)


def test_shuffling_shows_nothing_of_a_head_that_always_says_the_same():
    gain = exercises.shuffled_gain.right
    rewards, same = Draw(0).uniform(50, 3), torch.full((50,), 2)
    assert gain(rewards, same, seeded()) == 0
    assert gain(rewards, rewards.argmax(-1), seeded()) > 0


def test_the_rule_of_two_temperatures_is_that_of_by_place():
    words = "Ben ran home . Bella hid . The fox".split()
    ids = {word: i for i, word in enumerate(dict.fromkeys(["<sep>", *words]))}
    policy = ByPlace(Temperatures([0.2, 1.0]), [(0, 1)], [ids["<sep>"], ids["."]])
    before = torch.tensor([ids[word] for word in ["<sep>", *words[:-1]]])
    nothing = torch.zeros(len(words))
    step = Step(nothing.long(), nothing, nothing, before, nothing, nothing)
    chosen = [[0.2, 1.0][k] for k in policy.choose(step).tolist()]
    assert exercises.two_temperatures.right(words, 0.2, 1.0) == chosen


def test_the_final_answer_of_a_demonstration_is_the_library_s():
    task, rng = math_paths.MathPaths(), random.Random(0)
    for prompt in draw_prompts(task, 20, "train", rng):
        text = task.demonstration(prompt, rng)
        assert exercises.final_answer.right(text) == math_paths.final_answer(text)


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
    task, prompt = verdict.function(), "Write two words."
    assert task.reward(prompt, task.demonstration(prompt, random.Random(0))) == 1
    written = solution_of(exercises.own_task)
    assert exercises.own_task.check(written).function is written


def test_a_p_value_of_few_prompts_is_the_share_of_all_signs():
    differences = torch.tensor([3.0, 1.0, -1.0])  # the 8 sums are 5, 3, 3, 1 and their negatives
    p = exercises.permuted_p_value.right(differences, 20_000, seeded())
    assert p == pytest.approx(6 / 8, abs=0.02)


def test_every_exercise_can_be_had_by_its_name():
    assert all(getattr(exercises, name) is exercise for name, exercise in BY_NAME.items())

"""The numbers of the result table, counted again the slow way."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from minilpo.adaptive_decoder import AdaptiveDecoder, ConstantHead, Decisions
from minilpo.config import EvaluationConfig
from minilpo.decoding.choices import FirstTokens, Temperatures
from minilpo.decoding.generate import generate
from minilpo.decoding.policies import Fixed, GreedyHead
from minilpo.decoding.rollout import Rollout
from minilpo.evaluation.evaluate import evaluate
from minilpo.evaluation.measure import (
    Compared,
    Prompts,
    TwoTemperatures,
    compare,
    learned_constant,
    measure_fixed,
    prompts_to_measure,
)
from minilpo.evaluation.statistics import bootstrap_interval, wilson_interval
from minilpo.evaluation.summary import FEWEST, by_place_in_sentence, summarize
from minilpo.tasks import Prompt, Task, split_of
from tests.conftest import seeded


class Plain(Task):
    def __init__(self, name):
        self.name = name


class Kinds(Plain):
    def kind(self, prompt):
        return "long" if len(prompt) > 8 else "short"


class Parts(Plain):
    def parts(self, prompt, response):
        return {"size": len(response) / 9, "same": float(response[:1] == prompt[:1])}


FOUR_TEMPERATURES = [0.0, 0.3, 0.7, 1.0]
THREE_TASKS = [Plain("zebra"), Kinds("cow"), Parts("ant")]


def rollout(n_samples, responses, decisions=None, token_ids=None, response_mask=None):
    """As much of a rollout as is looked at."""
    return Rollout([], n_samples, responses, token_ids, response_mask, decisions)


def decided_by(choice_ids, mask):
    """Decisions without what was read."""
    return Decisions(torch.zeros(int(mask.sum()), 0), choice_ids, mask)


def measured(
    tasks, counts, fixed_rewards, adaptive_rewards=None, chosen=None, decided=None, rng=None
):
    """Makes a measurement as `evaluate` does: the rewards are given, the texts are noise.

    Rewards are (P, K) and (P,), or (P, K, N) and (P, N) of N responses of each sort.
    """
    rng = rng or random.Random(0)
    task_of = [task for task, count in zip(tasks, counts, strict=True) for _ in range(count)]
    fixed = np.array(fixed_rewards, dtype=float)
    fixed = fixed.reshape(*fixed.shape[:2], -1)  # (P, K, N)
    P, K, N = fixed.shape
    adaptive = np.zeros((P, N)) if adaptive_rewards is None else np.array(adaptive_rewards)
    texts = ["".join(rng.choices("zca", k=rng.randint(1, 9))) for _ in range(P * (K + 1) * N)]
    chosen = torch.zeros(P * N, 1, dtype=torch.long) if chosen is None else torch.as_tensor(chosen)
    decided = torch.ones_like(chosen) if decided is None else torch.as_tensor(decided)
    return Compared(
        prompts=[Prompt(f"{task.name} {'x' * rng.randint(1, 9)}", task) for task in task_of],
        fixed=rollout(K * N, texts[: P * K * N]),
        places=np.arange(K * N).reshape(K, N),
        fixed_samples=fixed,
        adaptive=rollout(N, texts[P * K * N :], decided_by(chosen, decided.bool())),
        adaptive_samples=adaptive.reshape(P, N),
        random_rewards=np.array([rng.random() for _ in range(P)]),
    )


def random_measured(seed, counts=(30, 11, 50), n_samples=3):
    rng = np.random.default_rng(seed)
    P, K, N, S = sum(counts), len(FOUR_TEMPERATURES), n_samples, 5
    few = np.float32([0, 0.2, 1 / 3, 0.5, 0.8, 1])  # so there are ties
    rewards = rng.choice(few, (P, K + 1, N)).astype(float)
    decided = np.arange(S) < rng.integers(1, S + 1, (P * N, 1))
    chosen = rng.integers(K, size=(P * N, S))
    return measured(
        THREE_TASKS, counts, rewards[:, :K], rewards[:, K], chosen, decided, random.Random(seed)
    )


def with_texts(data, texts):
    """Replaces the prompts by others of the same tasks."""
    return replace(data, prompts=[Prompt(*pair) for pair in zip(texts, data.tasks, strict=True)])


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def slow_summary(selection, test):
    """`summarize` without its intervals, in plain loops."""
    temperatures, K = FOUR_TEMPERATURES, len(FOUR_TEMPERATURES)

    def rows_of(data, task):
        return [p for p in range(len(data.prompts)) if data.tasks[p] is task]

    def over_tasks(data, value):
        return mean(mean(value(p) for p in rows_of(data, task)) for task in THREE_TASKS)

    def best(data, score):
        means = [score(k) for k in range(K)]
        return means.index(max(means))

    N = test.fixed_samples.shape[2]

    def fixed(data, p, k):
        return mean(data.fixed_samples[p, k, n] for n in range(N))

    def adaptive_of(p):
        return mean(test.adaptive_samples[p, n] for n in range(N))

    def won(p, k):
        pairs = [(n, m) for n in range(N) for m in range(N)]
        return mean(
            0.5 + 0.5 * np.sign(test.adaptive_samples[p, n] - test.fixed_samples[p, k, m])
            for n, m in pairs
        )

    def describe(rows):
        made = test.adaptive.decisions
        picks = [
            int(made.choice_ids[p * N + n, s])
            for p in rows
            for n in range(N)
            for s in range(made.choice_ids.shape[1])
            if made.mask[p * N + n, s]
        ]
        return {
            "prompts": len(rows),
            "fixed": [mean(fixed(test, p, k) for p in rows) for k in range(K)],
            "adaptive": mean(adaptive_of(p) for p in rows),
            "chosen_temperature": mean(temperatures[k] for k in picks),
            "histogram": [picks.count(k) / len(picks) for k in range(K)],
        }

    def kind(data, p):
        return data.tasks[p].kind(data.texts[p])

    constant = best(selection, lambda k: over_tasks(selection, lambda p: fixed(selection, p, k)))
    of_task, of_kind, tasks = {}, {}, {}
    for task in THREE_TASKS:
        rows, chosen_on = rows_of(test, task), rows_of(selection, task)
        chosen = best(selection, lambda k, on=chosen_on: mean(fixed(selection, p, k) for p in on))
        of_task[task.name] = chosen
        for name in {kind(test, p) for p in rows}:
            like = [p for p in chosen_on if kind(selection, p) == name]
            of_kind[task.name, name] = (
                chosen
                if len(like) < FEWEST
                else best(selection, lambda k, on=like: mean(fixed(selection, p, k) for p in on))
            )

        def per_kind(p, name=task.name):
            return fixed(test, p, of_kind[name, kind(test, p)])

        tasks[task.name] = describe(rows) | {
            "oracle": mean(fixed(test, p, chosen) for p in rows),
            "best_per_task": mean(fixed(test, p, chosen) for p in rows),
            "best_per_kind": mean(per_kind(p) for p in rows),
            "oracle_temperature": temperatures[chosen],
            "oracle_name": str(temperatures[chosen]).removesuffix(".0"),
        }
        if isinstance(task, Kinds):
            by_kind = tasks[task.name]["kinds"] = {}
            for name in {kind(test, p) for p in rows}:
                by_kind[name] = describe([p for p in rows if kind(test, p) == name])
                by_kind[name]["ci95_by"] = "bootstrap"
        if isinstance(task, Parts):
            pairs = [(p, n) for p in rows for n in range(N)]
            by_part = tasks[task.name]["parts"] = {}
            for part in ("size", "same"):

                def mean_of(responses, n_per_prompt, k=0, task=task, pairs=pairs, part=part):
                    texts = [
                        (test.texts[p], responses[p * n_per_prompt + k * N + n]) for p, n in pairs
                    ]
                    return mean(task.parts(*text)[part] for text in texts)

                on_fixed = [mean_of(test.fixed.responses, K * N, k) for k in range(K)]
                by_part[part] = {"fixed": on_fixed, "adaptive": mean_of(test.adaptive.responses, N)}
    best_reward = over_tasks(test, lambda p: fixed(test, p, constant))
    adaptive = over_tasks(test, adaptive_of)
    per_task = over_tasks(test, lambda p: fixed(test, p, of_task[test.tasks[p].name]))
    per_kind = over_tasks(
        test, lambda p: fixed(test, p, of_kind[test.tasks[p].name, kind(test, p)])
    )
    names = [str(t).removesuffix(".0") for t in temperatures]
    best_fixed = {"temperature": temperatures[constant], "name": names[constant]}
    return {
        "choices": names,
        "tasks": tasks,
        "mean": {
            "fixed": [over_tasks(test, lambda p, k=k: fixed(test, p, k)) for k in range(K)],
            "best_fixed": {**best_fixed, "reward": best_reward},
            "adaptive": adaptive,
            "oracle": per_task,
            "best_per_task": per_task,
            "best_per_kind": per_kind,
            "gain_over_best_fixed": {"estimate": adaptive - best_reward},
            "gain_over_best_per_task": {"estimate": adaptive - per_task},
            "gain_over_best_per_kind": {"estimate": adaptive - per_kind},
            "gap_closed": (adaptive - best_reward) / (per_task - best_reward)
            if per_task > best_reward
            else None,
        },
        "win_rate": {
            str(temperatures[k]): over_tasks(test, lambda p, k=k: won(p, k)) for k in range(K)
        },
    }


def flat(nest, path=""):
    """A nest of dictionaries and lists as one dictionary; the intervals are left out."""
    if not isinstance(nest, (dict, list)):
        return {path: nest}
    leaves = {}
    for name, part in nest.items() if isinstance(nest, dict) else enumerate(nest):
        leaves |= {} if str(name).endswith("ci95") else flat(part, f"{path}/{name}")
    return leaves


@pytest.mark.parametrize("seed", range(3))
def test_every_number_equals_a_slow_count_in_plain_loops(seed):
    selection, test = random_measured(seed, (20, 33, 9)), random_measured(100 + seed)
    summary = summarize(selection, test, Temperatures(FOUR_TEMPERATURES), 100, seed)
    assert flat(summary) == pytest.approx(flat(slow_summary(selection, test)))


def test_the_best_constant_and_the_oracle_are_chosen_on_selection_and_scored_on_test():
    tasks, temperatures = [Plain("a"), Plain("b")], [0.0, 0.5, 1.0]
    selection = measured(tasks, [2, 2], [[1, 0.75, 0]] * 2 + [[0, 0.75, 1]] * 2)
    test = measured(tasks, [2, 2], [[0.25, 0.25, 1]] * 2 + [[0.75, 0.25, 0.5]] * 2, [0.5] * 4)
    summary = summarize(selection, test, Temperatures(temperatures), 100, 0)
    # On test it would be 1.0, with 0.75.
    assert summary["mean"]["best_fixed"] == {"temperature": 0.5, "name": "0.5", "reward": 0.25}
    found = {
        name: (of["oracle_temperature"], of["oracle"]) for name, of in summary["tasks"].items()
    }
    assert found == {"a": (0.0, 0.25), "b": (1.0, 0.5)}  # on test the other way round, with 1
    assert summary["mean"]["oracle"] == 0.375
    assert summary["mean"]["gain_over_best_fixed"]["estimate"] == 0.25
    assert summary["mean"]["gap_closed"] == 2.0


def test_of_equally_good_constants_the_lowest_is_taken():
    both = measured([Plain("a")], [3], [[0.5, 1, 1]] * 3)
    summary = summarize(both, both, Temperatures([0.0, 0.5, 1.0]), 100, 0)
    assert summary["mean"]["best_fixed"]["temperature"] == 0.5
    assert summary["tasks"]["a"]["oracle_temperature"] == 0.5


class Sorted(Plain):
    """The kind of a prompt is its last word."""

    def kind(self, prompt):
        return prompt.split()[-1]


def of_kinds(kinds, fixed, adaptive=None):
    """Makes a measurement of one task, whose prompts are of these kinds."""
    made = measured([Sorted("a")], [len(kinds)], fixed, adaptive)
    return with_texts(made, [f"a {kind}" for kind in kinds])


def test_the_best_per_kind_is_chosen_on_training_prompts_where_there_are_enough_of_the_kind():
    cold, warm = [1.0, 0.0], [0.0, 1.0]
    kinds = ["many"] * FEWEST + ["few"] * (FEWEST - 1) + ["most"] * 20
    selection = of_kinds(kinds, [warm] * FEWEST + [warm] * (FEWEST - 1) + [cold] * 20)
    # On test prompts it is the other way round for "many"; "new" wasn't there.
    test = of_kinds(["many", "few", "most", "new"], [cold, [0.25, 0.5], cold, [0.125, 1.0]])
    summary = summarize(selection, test, Temperatures([0.0, 1.0]), 100, 0)
    task, mean = summary["tasks"]["a"], summary["mean"]
    assert task["best_per_task"] == mean["best_per_task"] == (1 + 0.25 + 1 + 0.125) / 4
    # "many" at its own, 1; "few" and "new" at their task's, 0, as "most".
    assert task["best_per_kind"] == mean["best_per_kind"] == (0 + 0.25 + 1 + 0.125) / 4
    assert mean["gain_over_best_per_kind"]["estimate"] == -mean["best_per_kind"]


def test_kinds_of_two_tasks_with_the_same_name_are_two_kinds():
    n = FEWEST
    tasks, rewards = [Plain("a"), Plain("b")], [[1.0, 0.0]] * n + [[0.0, 1.0]] * n
    for task in tasks:
        task.kind = lambda prompt: "same"
    both = measured(tasks, [n, n], rewards)
    assert summarize(both, both, Temperatures([0.0, 1.0]), 100, 0)["mean"]["best_per_kind"] == 1.0


def test_small_groups_have_wilsons_interval_where_rewards_are_0_or_1_and_else_the_bootstraps():
    kinds = ["right"] * 20 + ["graded"] * 20 + ["alone"]
    adaptive = [1.0] * 20 + [0.5, 0.75] * 10 + [0.5]
    test = of_kinds(kinds, [[0.0, 1.0]] * 41, adaptive)
    found = summarize(test, test, Temperatures([0.0, 1.0]), 200, 0)["tasks"]["a"]["kinds"]
    assert found["right"]["ci95_by"] == "wilson" and found["right"]["prompts"] == 20
    assert found["right"]["ci95"] == pytest.approx([0.8389, 1.0], abs=0.0001)
    assert found["graded"]["ci95_by"] == "bootstrap"
    low, high = found["graded"]["ci95"]
    assert 0.5 < low < 0.625 < high < 0.75
    assert found["alone"]["prompts"] == 1 and found["alone"]["ci95"] is None


def test_many_responses_to_few_prompts_dont_make_wilsons_interval_narrower():
    rewards = np.array([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    test = of_kinds(["x"] * 3, rewards[:, None], rewards)
    found = summarize(test, test, Temperatures([1.0]), 100, 0)["tasks"]["a"]["kinds"]["x"]
    assert found["ci95"] == wilson_interval(0.75 + 0.5 + 1, 3)


def test_the_gap_has_an_interval_unless_it_may_be_0():
    tasks, rng = [Plain("a"), Plain("b")], np.random.default_rng(0)
    better = np.concatenate([rng.normal(0.5, 0.2, (200, 1)), rng.normal(0.5, 0.2, (200, 1))])
    selection = measured(tasks, [1, 1], [[1.0, 0.75], [0.5, 0.6]])  # constant 0; best 0 and 1
    for gain, has_interval in ((0.3, True), (0.0, False)):
        other = better + np.repeat([[0.0], [gain]], 200, 0) + rng.normal(0, 0.2, (400, 1))
        test = measured(tasks, [200, 200], np.hstack([better, other]), better[:, 0] + 0.1)
        mean = summarize(selection, test, Temperatures([0.0, 1.0]), 400, 0)["mean"]
        assert (mean["gap_closed_ci95"] is not None) == has_interval
        if has_interval:
            low, high = mean["gap_closed_ci95"]
            assert low < mean["gap_closed"] < high
            assert mean["gap_closed"] == pytest.approx(0.1 / 0.15, abs=0.2)


def test_greedy_responses_are_written_once_and_counted_as_all(greedy):
    """Two writings of a prompt at temperature 0 are equal, so the second would be in vain."""
    task = Wordy(greedy)
    prompts = prompts_to_measure([task], "test", CONFIG, 0)
    for choices, order in ((HOT, [0, 1, 1, 1]), (Temperatures([0.5]), [0, 0, 0])):
        made = measure_fixed(greedy.lm, prompts, choices, seeded(0), n_samples=3)
        assert made.fixed.n_samples == len(order)
        assert made.fixed.decisions.choice_ids.view(3, -1).tolist() == [order] * 3
    made = measure_fixed(greedy.lm, prompts, HOT, seeded(0), n_samples=3)
    assert made.fixed_samples.tolist() == [[[1.0] * 3, [0.0] * 3]] * 3
    texts = [greedy[text] for text in prompts.texts]
    assert [made.fixed.responses[row] for row in made.fixed_rows(np.arange(3), 0)] == texts
    assert made.fixed_rows(np.arange(3), 1).tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11]


def test_a_head_that_chooses_once_has_the_responses_of_the_temperatures_that_it_chooses(greedy):
    """They are those that it would have written itself, in all but the numbers drawn."""
    config = EvaluationConfig(test_prompts=8)
    lm, prompts = greedy.lm, prompts_to_measure([Wordy(greedy)], "test", config, 0)
    head = AdaptiveDecoder(16, 2, n_hidden=8, generator=seeded(1)).double()
    torch.nn.init.normal_(head.mlp[-1].weight, std=9, generator=seeded(3))
    read = lm.prefill(lm.encode(prompts.texts), n_samples=1, max_new_tokens=1)
    with torch.no_grad():  # half of the prompts get each temperature
        head.mlp[-1].bias -= head(read.hidden_states).median(0).values
    policy = GreedyHead(head, HOT)
    test = compare(lm, prompts, policy, seeded(0), n_samples=2)
    alone = generate(lm, prompts.texts, policy, seeded(5), n_samples=2)
    chosen = alone.decisions.choice_ids
    assert set(chosen.flatten().tolist()) == {0, 1}  # or this test says nothing
    assert (test.adaptive.decisions.choice_ids == chosen).all()
    assert test.adaptive.prompts == prompts.texts and test.adaptive.n_samples == 2
    for row, k in enumerate(chosen[:, 0].tolist()):
        p, n = divmod(row, 2)
        assert test.adaptive_samples[p, n] == test.fixed_samples[p, k, n]
        if k == 0:
            assert test.adaptive.responses[row] == alone.responses[row]


@pytest.mark.parametrize("oracle_on_test", [0.5, 0.25])
def test_there_is_no_gap_to_close_unless_the_oracle_beats_the_best_constant(oracle_on_test):
    tasks = [Plain("a"), Plain("b")]
    selection = measured(tasks, [1, 1], [[1.0, 0.75], [0.5, 0.6]])  # constant 0; oracle 0 and 1
    test = measured(tasks, [1, 1], [[0.5, 1.0], [0.5, oracle_on_test]], [1.0, 1.0])
    assert (
        summarize(selection, test, Temperatures([0.0, 1.0]), 100, 0)["mean"]["gap_closed"] is None
    )


# Intervals


def test_about_95_of_100_intervals_contain_the_truth():
    rng = np.random.default_rng(0)
    names, truth, covered = np.repeat(["a", "b"], [60, 40]), 0.5 * (1 / 2 + 1 / 3), 0
    for _ in range(300):
        values = np.concatenate([rng.random(60), rng.random(40) ** 2])
        low, high = bootstrap_interval(values, names, 200, rng)
        covered += low <= truth <= high
    assert 0.92 < covered / 300 < 0.98


# The whole of it, with a model


CONFIG = EvaluationConfig(
    test_prompts=3, samples_per_prompt=2, selection_prompts=2, ood_prompts=1, resamples=100
)


def test_only_temperatures_can_be_evaluated(lm):
    """There is no constant to compare other choices with."""
    head = AdaptiveDecoder(16, 2, n_hidden=4, generator=seeded(1))
    policy = GreedyHead(head, FirstTokens([5, 6], ["think", "answer"]))
    with pytest.raises(ValueError, match="must choose among Temperatures, got FirstTokens; .*use"):
        evaluate(lm, [Plain("a")], policy, CONFIG, 0)


def test_the_prompts_of_a_task_are_its_own_in_order():
    pairs = zip("abcde", (0, 1, 0, 2, 1), strict=True)
    prompts = Prompts([Prompt(text, THREE_TASKS[i]) for text, i in pairs])
    assert prompts.names.tolist() == ["zebra", "cow", "zebra", "ant", "cow"]
    for task, own in zip(THREE_TASKS, ("ac", "be", "d"), strict=True):
        assert prompts.of(task) == Prompts([Prompt(text, task) for text in own])
    assert prompts.of(Plain("dog")) == Prompts([])


def test_the_first_token_and_the_one_after_a_full_stop_begin_a_sentence(lm):
    tokenizer = lm.tokenizer
    text = "The fox hid a map in the cave. Then the fox ran slowly through the cave."
    token_ids = torch.tensor([tokenizer.encode(text)] * 2, dtype=torch.int32)
    first = torch.zeros_like(token_ids, dtype=torch.bool)
    first[:, [0, text.split().index("Then") + 1]] = True  # the full stop is a token of its own
    assert tokenizer.pieces(token_ids[0][first[0]].tolist()) == [" The", " Then"]
    made = torch.ones_like(first)
    made[1, -3:] = False  # behind the end of the second response
    chosen = torch.where(first, 1, torch.where(made, 2, 3))
    whole = rollout(1, [text] * 2, decided_by(chosen, made), token_ids, made)
    places = by_place_in_sentence(whole, [0.0, 0.25, 0.75, 9.0], lm.sentence_starts)
    assert places == {"first_word_temperature": 0.25, "other_temperature": 0.75}


OTHERS = ["pens", "cakes", "stamps", "coins"]


class Wordy(Plain):
    """Easy prompts in plenty; the reward is whether the response is the greedy one, or the opposite
    where `warm` says so.
    """

    def __init__(self, greedy, warm=lambda prompt: False):
        super().__init__("wordy")
        self.greedy, self.warm = greedy, warm

    def prompt(self, rng):
        thing = f"{rng.randint(3, 15)} {rng.choice(['apples', 'shells', 'cards'])}"
        return f"Mia has {thing}. How many {rng.choice(OTHERS)} are left?"

    def ood_prompt(self, rng):
        return f"Tom has {rng.randint(3, 15)} cakes. How many {rng.choice(OTHERS)} are left?"

    def reward(self, prompt, response):
        return float((response == self.greedy[prompt]) != self.warm(prompt))


class Greedy(dict):
    """The greedy response to each prompt, in double precision: rounding draws no other word."""

    def __init__(self, lm):
        self.lm = lm
        lm.model.double()

    def __missing__(self, prompt):
        policy = Fixed(Temperatures([0.0]))
        [response] = generate(self.lm, [prompt], policy, seeded(0)).responses
        return self.setdefault(prompt, response)


@pytest.fixture
def greedy(lm):
    return Greedy(lm)


HOT = Temperatures([0.0, 3.0])  # the second never writes a greedy response


def test_the_random_control_draws_its_temperatures_evenly(greedy):
    """If only the greedy response is rewarded, a control that were greedy itself would always or
    never be.
    """
    head = AdaptiveDecoder(16, 2, n_hidden=8, generator=seeded(1)).double()
    head.mlp[-1].bias.data[1] = 5.0
    config = EvaluationConfig(test_prompts=10, selection_prompts=2, ood_prompts=1, resamples=100)
    constant = ConstantHead(16, 2, n_hidden=8, generator=seeded(1))
    policy = GreedyHead(head, HOT)
    metrics, _ = evaluate(greedy.lm, [Wordy(greedy)], policy, config, 0, constant_head=constant)
    assert metrics["mean"]["fixed"] == [1.0, 0.0] and metrics["mean"]["adaptive"] == 0.0
    assert 0.2 < metrics["controls"]["random_head"]["reward"] < 0.8


def test_the_constants_are_those_of_the_training_prompts_wherever_they_are_scored(greedy):
    """On training prompts cold is right, on test prompts and out of distribution warm: the best
    constant and the oracle must not know.
    """
    task = Wordy(greedy, warm=lambda prompt: prompt.startswith("Tom") or split_of(prompt) == "test")
    head = AdaptiveDecoder(16, 2, n_hidden=8, generator=seeded(1)).double()
    config = EvaluationConfig(test_prompts=3, selection_prompts=3, ood_prompts=3, resamples=100)
    metrics, _ = evaluate(greedy.lm, [task], GreedyHead(head, HOT), config, 0)
    for measured_on in (metrics, metrics["ood"]):
        assert measured_on["mean"]["fixed"] == [0.0, 1.0]
        assert measured_on["mean"]["best_fixed"] == {"temperature": 0.0, "name": "0", "reward": 0.0}
        assert measured_on["tasks"]["wordy"]["oracle_temperature"] == 0.0
        assert measured_on["mean"]["oracle"] == 0.0


def test_the_two_temperatures_are_chosen_on_selection_and_scored_on_test_prompts(greedy):
    """On the selection prompt only greedy is right, on the test prompt anything else."""
    texts = {
        "selection": "Mia has 7 apples. How many pens are left?",
        "test": "Mia has 3 cards. How many pens are left?",
    }
    task = Wordy(greedy, warm=lambda prompt: prompt == texts["test"])
    selection, test = (Prompts([Prompt(text, task)]) for text in texts.values())
    both = {"first": 0.0, "rest": 0.0, "first_name": "0", "rest_name": "0"}
    rule = TwoTemperatures(greedy.lm, HOT, selection, test, 0).search()
    assert rule == {**both, "reward": 0.0}
    rule = TwoTemperatures(greedy.lm, HOT, test, selection, 0).search()
    assert 3.0 in (rule["first"], rule["rest"]) and rule["reward"] == 0.0


def test_the_learned_constant_is_what_a_head_without_input_finds_most_likely():
    head = ConstantHead(8, len(FOUR_TEMPERATURES), n_hidden=4, generator=seeded(0))
    head.mlp[-1].bias.data[2] = 1.0
    assert learned_constant(head) == 2

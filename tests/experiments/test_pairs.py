"""Pairs and samples: training comes where theory says, and the conclusion says what came out."""

from dataclasses import replace

import pytest

from minilpo.experiments import pairs
from minilpo.experiments.base import over_seeds
from minilpo.experiments.lab import Lab
from minilpo.rivals.optimum import optimum
from minilpo.seeds import torch_generator
from tests import standin
from tests.experiments import named
from tests.experiments.test_rivals import CONFIG, lab_in, n_written


@pytest.mark.parametrize("rule, n", pairs.CASES.values())
def test_the_real_head_comes_by_the_real_fit_to_the_exact_optimum(rule, n):
    """8,192 simulated responses, every probability within 0.05."""
    found = pairs.learned(pairs.EXAMPLE, n, rule, 2**13, torch_generator(0, f"test {rule} {n}"))
    expected = optimum(pairs.EXAMPLE, n, rule).tolist()
    assert found == pytest.approx(expected, abs=0.05)
    if rule == "best_worst":  # and not to that of the other number of samples
        assert found != pytest.approx(optimum(pairs.EXAMPLE, 20 - n, rule).tolist(), abs=0.2)


def test_beta_only_sharpens_it_and_pairs_that_pay_the_same_leave_the_head_uniform():
    found = pairs.learned(pairs.EXAMPLE, 4, "gap", 2**13, torch_generator(0, "beta"), beta=0.5)
    squares = optimum(pairs.EXAMPLE, 4, "gap") ** 2
    assert found == pytest.approx((squares / squares.sum()).tolist(), abs=0.05)
    same = [{1.0: 0.5, 0.0: 0.5}] * 3
    found = pairs.learned(same, 4, "gap", 2**13, torch_generator(0, "same"))
    assert found == pytest.approx([1 / 3] * 3, abs=0.05)


def test_every_head_learns_from_as_many_responses_and_steps_whatever_its_pairs_and_samples(
    tmp_path, monkeypatch
):
    writer, costs = standin.Writer(), []
    monkeypatch.setattr("minilpo.decoding.generate.generate", writer)
    monkeypatch.setattr(pairs, "learned", lambda *_: [])
    monkeypatch.setattr(pairs, "EARNINGS", 32)
    lab = lab_in(tmp_path, lpo=replace(CONFIG.lpo, epochs=1))

    def apart(self, task, *_, **settings):
        return lab_in(tmp_path, [task], lpo=self.config.lpo, **settings)

    def head(self, *names, real=Lab.head, **asked):
        writer.calls.clear()
        made = real(self, *names, **asked)
        costs.append((asked.get("rounds", 3), n_written(writer)))
        return made

    monkeypatch.setattr(Lab, "apart", apart)
    monkeypatch.setattr(Lab, "head", head)
    pairs.measure(lab)
    per_round = 96 * 16 + 4 * 9 * 4  # 96 prompts at 16 samples; 9 held-out prompts per task at 4
    of_control = 96 * 16 + 9 * 4
    assert sorted(costs) == [(1, of_control)] * 6 + [(3, 3 * per_round)] * 4


def seed_of(noise, example=0.0, control=0.0, gap=(0.02, 0.02)):
    """Numbers of a seed; `example` and `control` are distances from what theory says."""
    numbers = {"example": {}, "control": {"best_constant": 0.6, "fixed": [0.6, 0.55]}}
    for key, (rule, n) in pairs.CASES.items():
        a, b, c = optimum(pairs.EXAMPLE, n, rule).tolist()
        numbers["example"][key] = [a + example + noise, b, c - example - noise]
        theory = 0.45 if rule == "gap" else 0.7
        warm = {"warm": theory + control + noise, "theory": theory}
        numbers["control"][key] = warm | {"reward": 0.58 + noise}
    numbers["mixture"] = {f"best_worst, {n}": 0.8 for n in pairs.SAMPLES}
    for n, gain in zip(pairs.SAMPLES, gap, strict=True):
        numbers["mixture"][f"gap, {n}"] = 0.8 + gain + noise
    return numbers


NOISES = (-0.002, -0.001, 0.0, 0.001, 0.002)


def concluded(*other, **given):
    """From five seeds that differ a little; `other` replaces values of the first one."""
    seeds = [seed_of(noise, **given) for noise in NOISES]
    for part, case, name, value in other:
        seeds[0][part][case][name] = value
    return pairs.conclude(over_seeds(seeds))


def test_where_theory_and_training_agree_it_says_so_and_what_the_gap_gains_on_the_mixture():
    good = concluded()
    assert good.agrees and "The theory holds" in good.sentence
    assert (
        "greedy, which gets 0.600, by pairs by gap of 4, pairs by gap of 16; temperature 1, "
        "which gets 0.550, by best/worst of 4, best/worst of 16, all pairs of 4, all pairs of 16."
    ) in good.sentence
    assert good.sentence.endswith(
        "On the mixture pairs by gap get more than best/worst at 4 and more than best/worst at 16 samples."
    )
    rows = named(good)
    assert rows["mixture: gap - best/worst, 4 samples"].mean == pytest.approx(0.02)
    assert rows["safe_bet: reward - best constant, all pairs of 4"].mean < 0
    gamble = rows["example: P of the gamble, best/worst of 16"].mean
    assert gamble == pytest.approx(0.934, abs=0.001)


@pytest.mark.parametrize(
    "other, given, said",
    [
        ((), {"example": 0.2}, "a P ends 0.20 from the optimum"),
        # All prefer the gamble, so the pairs by gap don't do what theory says.
        ((), {"control": 0.1}, "what theory says: pairs by gap of 4, pairs by gap of 16."),
        # Too close to even for the interval over seeds.
        ((), {"control": 0.05}, "what theory says: pairs by gap of 4, pairs by gap of 16."),
        # A single seed is enough.
        ((("example", "gap, 4", 2, 0.24),), {}, "a P ends 0.13 from the optimum"),
        ((("control", "best_worst, 4", "warm", 0.49),), {}, "theory says: best/worst of 4."),
        # Theory itself, by what a seed's temperatures have earned.
        ((("control", "all, 16", "theory", 0.49),), {}, "theory says: all pairs of 16."),
    ],
)
def test_the_conclusion_tells_every_miss(other, given, said):
    found = concluded(*other, **given)
    assert not found.agrees and said in found.sentence
    assert ("every head" in found.sentence) == ("optimum" in said)


def test_a_loss_on_the_mixture_is_told_though_it_is_not_what_the_theory_is_about():
    lost = concluded(gap=(-0.02, 0.0))
    assert lost.agrees
    assert lost.sentence.endswith(
        "On the mixture pairs by gap get less than best/worst at 4 "
        "and not clearly more or less than best/worst at 16 samples."
    )


def test_if_all_rules_should_prefer_the_same_it_does_not_say_that_the_gap_differs():
    same = {"theory": 0.7, "warm": 0.7}
    seed = seed_of(0.0)
    for key in pairs.CASES:
        seed["control"][key] |= same
    told = pairs.conclude(over_seeds([seed] * 5))
    assert "greedy, which gets 0.600, by none; temperature 1" in told.sentence

"""The paper in miniature: files, resuming, bad input, and what is concluded from given numbers."""

import importlib
import json
import shutil

import numpy as np
import pytest

from minilpo.cli import main
from minilpo.experiments import (
    EXPERIMENTS,
    controls,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7,
    table1,
    table3,
    table4,
    table5,
)
from minilpo.experiments.base import Row, compared, direction, mean_and_half, text_table
from minilpo.experiments.lab import MIXTURE
from minilpo.experiments.methods import HEADS
from minilpo.experiments.reproduce import experiment
from minilpo.machine.files import json_bytes, tensor_bytes, tensors_of
from minilpo.rivals.controls import CORPUS
from tests.outside import fails, files_of, forge

TINY = "--steps 500 --batch-size 16 --learning-rate 0.006 --demonstrations 8000 --warmup-steps 5 "
TINY += "--n-layer 1 --n-embd 32 --n-head 2 --rounds 1 --prompts 128 --samples 8 --epochs 2 "
TINY += "--validation-prompts 2 --test-prompts 8 --selection-prompts 4 --ood-prompts 4"
TINY = TINY.split()


def results_of(folder):
    """Every file's bytes but those of the cache, which holds timings."""
    return {name: data for name, data in files_of(folder).items() if not name.startswith("cache")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every experiment with two seeds."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(["reproduce", "all", "--seeds", "2", "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture
def out(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


def test_every_experiment_leaves_numbers_a_table_and_a_figure(whole):
    for name in EXPERIMENTS:
        result = json.loads((whole / name / "result.json").read_text())
        assert (
            result["experiment"] == name
            and result["seeds"] == 2
            and isinstance(result["agrees"], bool)
        )
        for row in result["rows"]:
            assert len(row["seeds"]) == 2 and row["mean"] == pytest.approx(np.mean(row["seeds"]))
            assert row["ci95"][0] <= row["mean"] <= row["ci95"][1]
        table = (whole / name / "table.txt").read_text()
        assert (
            all(row["label"] in table and row["paper"] in table for row in result["rows"])
            and result["sentence"] in table
        )
        assert (whole / name / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<script" not in (whole / "fig6" / "strip.html").read_text()
    assert (whole / "fig6" / "strip.txt").read_text().count("[0") > 20


def test_the_tables_are_printed(whole, capsys):
    assert main(["reproduce", "table5", "--seeds", "2", "--out", str(whole), *TINY]) == 0
    printed = capsys.readouterr().out
    assert (
        printed.startswith((whole / "table5" / "table.txt").read_text()) and str(whole) in printed
    )


def test_one_language_model_and_one_head_of_each_kind_serve_all_experiments(whole):
    # Three per seed: `safe_bet` and `think_or_answer` have their own.
    folders = list((whole / "cache").iterdir())
    assert len(list((whole / "cache").glob("*/language_model/model.pt"))) == len(folders) == 6
    per_model = sorted(len(list(folder.glob("head_*.pt"))) for folder in folders)
    # The control's six; mixture, table1, table3, table4, controls, rivals' heads and four early
    # ones, and the mixture in other pairs.
    assert per_model == [0] * 2 + [6] * 2 + [2 + 1 + 3 + 4 + 2 + len(HEADS) + 4 + 4] * 2
    tasks = json.loads((whole / "reproduce.json").read_text())["tasks"]
    assert tasks == [task.name for task in CORPUS]  # those apart change no language model


def test_missing_seeds_are_made_and_everything_else_is_kept(out, whole, monkeypatch):
    (out / "table4" / "seed_1.json").unlink()
    (out / "fig7" / "result.json").unlink()
    for folder in (out / "cache").glob("seed_0_*"):
        shutil.rmtree(folder)  # not needed again
    assert main(["reproduce", "all", "--seeds", "2", "--out", str(out), *TINY]) == 0
    assert results_of(out) == results_of(whole)


def test_the_page_shows_every_experiment_of_the_folder_not_only_the_one_just_asked_for(
    out, whole, capsys
):
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert all(f">{name}</h2>" in page for name in EXPERIMENTS)
    assert page.count("<img ") == len(EXPERIMENTS)
    (out / "report.html").unlink()
    assert main(["reproduce", "fig7", "--seeds", "2", "--out", str(out), *TINY]) == 0
    assert (out / "report.html").read_text(encoding="utf-8") == page
    (out / "table4" / "seed_1.json").write_text("damaged")
    (out / "mine").mkdir()
    (out / "mine" / "seed_0.json").write_text("no experiment")
    capsys.readouterr()
    assert main(["reproduce", "fig7", "--seeds", "2", "--out", str(out), *TINY]) == 0
    rest = (out / "report.html").read_text(encoding="utf-8")
    assert (
        ">table4</h2>" not in rest and rest.count("<img ") == len(EXPERIMENTS) - 1
    )  # nothing damaged
    assert "leaves out table4" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_reproduction_goes_on_to_the_same_bytes(
    tmp_path, whole, monkeypatch, capsys
):
    arguments = ["reproduce", "all", "--seeds", "2", "--out", str(tmp_path / "out"), *TINY]
    for module, seed in ((table1, 0), (controls, 1)):

        def stop(lab, real=module.measure, seed=seed):
            if lab.seed == seed:
                raise KeyboardInterrupt
            return real(lab)

        with monkeypatch.context() as patch:
            patch.setattr(module, "measure", stop)
            assert main(arguments) == 130
        assert "goes on from there" in capsys.readouterr().err
    assert main(arguments) == 0
    assert results_of(tmp_path / "out") == results_of(whole)


def test_more_seeds_later_are_the_same_as_at_once(tmp_path, whole):
    for seeds in ("1", "2"):
        assert (
            main(["reproduce", "fig7", "--seeds", seeds, "--out", str(tmp_path / "out"), *TINY])
            == 0
        )
        said = json.loads((tmp_path / "out" / "fig7" / "result.json").read_text())["sentence"]
        assert said.startswith("A single seed") == (seeds == "1")
    assert files_of(tmp_path / "out" / "fig7") == files_of(whole / "fig7")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["fig99"], "fig99"),
        ([], "NAME"),
        (["fig3", "--seeds", "0"], "--seeds: must be from 1 to 1,000, got 0"),
        (["fig3", "--seeds", "few"], "--seeds"),
        (["fig3", "--steps", "0"], "--steps must be from 1"),
        (["fig3", "--loss", "nll"], "--loss"),
    ],
)
def test_bad_settings_are_one_line_and_leave_no_folder(
    tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, "reproduce", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_results_is_left_alone(out, tmp_path, capsys):
    before = files_of(out)
    assert "other settings" in fails(
        capsys, "reproduce", "fig3", "--out", out, *TINY, "--beta", "2"
    )
    assert files_of(out) == before
    shutil.copy(out / "fig3" / "seed_0.json", out / "fig4" / "seed_0.json")
    assert "fig4/seed_0.json must be the file that record.json names" in fails(
        capsys, "reproduce", "fig4", "--seeds", "2", "--out", out, *TINY
    )
    (out / "fig5" / "seed_0.json").write_text("{")
    assert "fig5" in fails(capsys, "reproduce", "fig5", "--seeds", "2", "--out", out, *TINY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "empty" in fails(capsys, "reproduce", "fig3", "--out", tmp_path / "mine", *TINY)


def test_nothing_damaged_in_a_reproduction_is_believed(out, whole, capsys):
    command = ["reproduce", "table4", "--seeds", "2", "--out", out, *TINY]
    (out / "table4" / "seed_0.json").unlink()  # so that heads and language model are needed again
    # Of the language models of this seed, that of all tasks has the most heads.
    cache = max((out / "cache").glob("seed_0_*"), key=lambda p: len(list(p.glob("head_*.pt"))))
    heads = {path: path.read_bytes() for path in cache.glob("head_*.pt")}
    settings, numbers = out / "reproduce.json", out / "table4" / "seed_1.json"
    for paths in ([settings], [numbers], heads):
        for path in paths:
            data = path.read_bytes()
            path.write_bytes(
                data[: len(data) // 2]
                + bytes([data[len(data) // 2] ^ 1])
                + data[len(data) // 2 + 1 :]
            )
        said = fails(capsys, *command)
        assert any(path.name in said for path in paths)
        for path in paths:
            path.write_bytes(heads.get(path) or (whole / path.relative_to(out)).read_bytes())
    for path in heads:  # with a checksum that fits, as another version may have left it
        forge(cache, path.name, tensor_bytes({**tensors_of(path.read_bytes()), "head": {}}))
    assert "head_" in fails(capsys, *command)
    for path, data in heads.items():
        forge(cache, path.name, data)
    for strange in ({}, {"rows": 3}):
        forge(out, "table4/seed_1.json", json_bytes(strange))
        assert "table4" in fails(capsys, *command)
    forge(out, "table4/seed_1.json", (whole / "table4" / "seed_1.json").read_bytes())
    (cache / "language_model" / "model.pt").write_bytes(
        b"damaged"
    )  # it can be made again, to the bit
    assert main([str(word) for word in command]) == 0
    assert results_of(out) == results_of(whole)


def test_a_second_reproduction_in_the_same_folder_is_told_so(out, monkeypatch, capsys):
    pytest.importorskip("fcntl", reason="this system has no such locks")
    (out / "fig7" / "seed_1.json").unlink()
    command = ["reproduce", "fig7", "--seeds", "2", "--out", str(out), *TINY]

    def measure(lab, real=fig7.measure):
        assert main(command) == 2 and "at work" in capsys.readouterr().err
        return real(lab)

    monkeypatch.setattr(fig7, "measure", measure)
    assert main(command) == 0


def test_every_experiment_has_the_names_of_one():
    for name in EXPERIMENTS:
        module = experiment(name)
        assert isinstance(module.PAPER, str) and all(
            callable(getattr(module, f)) for f in ("measure", "conclude", "draw")
        )
        assert importlib.import_module(f"minilpo.experiments.{name}") is module


# What is concluded


def test_an_interval_over_seeds_is_students_and_a_single_seed_has_none():
    row = Row("x", [1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776 * np.std([1, 2, 3, 4, 5], ddof=1) / 5**0.5
    assert row.mean == 3 and row.ci95 == pytest.approx([3 - half, 3 + half]) and row.sign() == 1
    assert Row("x", [1.0]).ci95 is None and Row("x", [1.0]).sign() == 0
    assert Row("x", [-1.0, 1.0]).sign() == 0 and Row("x", [-1.0, -1.1]).sign() == -1
    mean, half = mean_and_half([[[1.0, 5.0]], [[3.0, 5.0]]])
    assert mean.tolist() == [[2, 5]] and half[0, 0] == pytest.approx(12.706) and half[0, 1] == 0
    assert mean_and_half([[1.0, 2.0]])[1].tolist() == [0, 0]


def test_a_table_of_one_seed_says_so(whole):
    seeds = [json.loads((whole / "table5" / "seed_0.json").read_text())["numbers"]]
    assert text_table("table5", "", table5.conclude(seeds)).count("one seed") == len(
        table5.conclude(seeds).rows
    )


def five(make, **given):
    """Five seeds that differ a little."""
    return [make(0.001 * seed, **given) for seed in range(5)]


def around(value, noise):
    """A number that is as often well above a value as below, so that nothing can be told."""
    return value + 0.05 * (-1) ** round(1000 * noise)


def named(finding):
    return {row.label: row for row in finding.rows}


def titles(module, seeds):
    """The titles of an experiment's figure."""
    return [ax.get_title().replace("\n", " ") for ax in module.draw(seeds).axes]


def test_what_is_said_of_a_difference_is_on_which_side_of_zero_its_interval_lies():
    up, down, open_ = Row("a", [0.1, 0.11]), Row("b", [-0.1, -0.11]), Row("c", [-0.1, 0.1])
    told = [row.told("above", "below", "open") for row in (up, down, open_, Row("d", [0.1]))]
    assert told == ["above", "below", "open", "open"]  # a single seed says nothing
    rows = {"A": up, "B": down, "C": open_, "D": down}
    assert compared(rows) == "above A, below B and D, not clearly different from C"
    assert compared({"A": up}, "{} wins", "{} loses", "{} is open") == "A wins"
    assert down.text(3) == f"-0.105 ± {12.706 * 0.005:.3f}" and Row("d", [0.1]).text(1) == "+0.1"
    assert direction(True, "x.") == "The direction agrees: x."
    assert "does not agree" in direction(False, "x.")


def fig3_seed(noise, token=0.9, wins=0.6):
    level = {
        "tasks": {},
        "learned_constant": 0.7 + noise,
        "random_head": 0.6,
        "win_rates": [wins + noise] * 2,
    }
    return {
        "temperatures": [0.0, 1.0],
        "best_constant": 0.75,
        "oracle": 0.8,
        "sequence": level | {"reward": 0.82 + noise},
        "token": level | {"reward": token + noise},
    }


def test_fig3_agrees_only_if_every_win_rate_is_above_even_and_says_which_level_is_better():
    good = fig3.conclude(five(fig3_seed))
    assert good.agrees and "4 of 4 intervals are above 50%, 0 below" in good.sentence
    assert "But the paper's token level" in good.sentence and "+0.080" in good.sentence
    rows = named(good)
    assert rows["token - best per task"].mean == pytest.approx(0.102) and rows[
        "token - sequence"
    ].mean == pytest.approx(0.08)
    parts = rows["token: found a better constant"].mean + rows["token: adapted to the context"].mean
    assert parts == pytest.approx(rows["token - best constant"].mean)
    bad = fig3.conclude(five(fig3_seed, token=0.8, wins=0.4))
    assert not bad.agrees and "0 of 4 intervals are above 50%, 4 below" in bad.sentence
    assert "As in the paper, the token level gains less" in bad.sentence
    undecided = [
        fig3_seed(noise, token=around(0.82, noise), wins=around(0.5, noise))
        for noise in (0.0, 0.001, 0.002, 0.003)
    ]
    open_ = fig3.conclude(undecided)
    assert not open_.agrees and "0 of 4 intervals are above 50%, 0 below" in open_.sentence
    assert "don't clearly differ" in open_.sentence and "As in the paper" not in open_.sentence


def test_fig4_asks_for_the_order_of_the_tasks_and_for_the_widest():
    def seed(noise, math=0.0, instruct=0.5, constrained=0.9):
        shares = {
            "math": [1 - math, math],
            "instruct": [1 - instruct - noise, instruct + noise],
            "story": [0.0, 1.0],
        }
        return {
            "temperatures": [0.0, 1.0],
            "shares": shares | {"constrained_story": [1 - constrained, constrained]},
            "one_right_answer": 0.1,
            "open": 0.9,
        }

    good = fig4.conclude(five(seed))
    assert good.agrees and "instruct is above math" in good.sentence
    assert "the spread of instruct is above math, story and constrained_story" in good.sentence
    warm = fig4.conclude(five(seed, math=0.9))
    assert not warm.agrees and "instruct is below math" in warm.sentence
    narrow = fig4.conclude(five(seed, instruct=0.02))
    assert not narrow.agrees and "the spread of instruct is above math and story, below" in (
        narrow.sentence
    )
    # Widest on average, but not beyond the interval: that isn't enough.
    mixed = [seed(0.0, constrained=share) for share in (0.5, 0.9, 0.5, 0.9, 0.5)]
    undecided = fig4.conclude(mixed)
    assert not undecided.agrees
    assert "not clearly different from constrained_story" in undecided.sentence


def fig5_seed(noise, first=0.1, reward=0.86, win=0.6):
    return {
        "temperatures": [0.0, 1.0],
        "fixed": [0.4, 0.6],
        "best_constant": 0.6,
        "two_temperatures": {"first": 0.0, "rest": 1.0, "reward": 0.9},
        "reward": reward + noise,
        "win_rates": [0.7, win + noise],
        "first_word_temperature": first,
        "other_temperature": 0.6 + noise,
    }


def test_fig5_measures_how_far_it_is_to_the_best_two_temperatures():
    good = fig5.conclude(five(fig5_seed))
    assert named(good)["share of the way to the two temperatures"].mean == pytest.approx(
        0.262 / 0.3
    )
    worse_rule = {"two_temperatures": {"first": 0.0, "rest": 1.0, "reward": 0.5}}
    seeds = [seed | worse_rule for seed in five(fig5_seed, reward=0.4)]
    assert named(fig5.conclude(seeds))["share of the way to the two temperatures"].mean == 0


def test_fig5_tells_temperatures_rewards_and_win_rates_apart():
    good = fig5.conclude(five(fig5_seed))
    assert good.agrees and "colder at the first word" in good.sentence
    assert "above the best constant" in good.sentence and "2 of 2 win-rates" in good.sentence
    warm = fig5.conclude(five(fig5_seed, first=0.7))
    assert not warm.agrees and "warmer at the first word" in warm.sentence
    assert "above the best constant" in warm.sentence
    poor = fig5.conclude(five(fig5_seed, reward=0.5, win=0.3))
    assert not poor.agrees and "colder at the first word" in poor.sentence
    assert "below the best constant" in poor.sentence and "1 of 2 win-rates" in poor.sentence
    assert not fig5.conclude(five(fig5_seed, win=0.3)).agrees
    undecided = [fig5_seed(noise, reward=around(0.6, noise)) for noise in (0.0, 0.001, 0.002)]
    open_ = fig5.conclude(undecided)
    assert not open_.agrees and "not clearly different from the best constant" in open_.sentence
    assert titles(fig5, five(fig5_seed)) == [
        "Colder at the first word: 0.10 against 0.60",
        "The head is above 2 of 2 single temperatures",
    ]
    assert titles(fig5, five(fig5_seed, first=0.7, reward=0.5)) == [
        "Warmer at the first word: 0.70 against 0.60",
        "The head is above 1 of 2 single temperatures",
    ]
    undecided_titles = titles(fig5, [fig5_seed(0.0)])  # a single seed
    assert undecided_titles[0].startswith("Neither clearly colder nor warmer")
    assert undecided_titles[1] == "The head is above 0 of 2 single temperatures"


def test_fig6_compares_the_first_word_with_the_rest():
    def seed(noise, first=0.1):
        places = {"first_word_temperature": first + noise, "other_temperature": 0.6}
        return {name: places | {"strips": []} for name in MIXTURE}

    good, bad = fig6.conclude(five(seed)), fig6.conclude(five(seed, first=0.8))
    assert good.agrees and "is colder than the rest" in good.sentence
    assert not bad.agrees and "is warmer than the rest (-0.20" in bad.sentence
    undecided = fig6.conclude([seed(0.0, around(0.6, noise)) for noise in (0.0, 0.001, 0.002)])
    assert not undecided.agrees and "not clearly different from the rest" in undecided.sentence


def test_fig7_tells_what_was_chosen_most_from_what_was_chosen_most_for_once_rejected():
    def seed(noise, chosen=(0.3, 0.7), rejected=(0.1, 0.9)):
        return {
            "temperatures": [0.0, 1.0],
            "chosen": {name: [chosen[0] - noise, chosen[1] + noise] for name in MIXTURE},
            "rejected": {name: list(rejected) for name in MIXTURE},
        }

    good = fig7.conclude(five(seed))
    assert good.agrees and named(good)["math: chosen most often"].mean == 1
    assert named(good)["math: most often chosen for once rejected"].mean == 0
    assert "points to another temperature" in good.sentence and MIXTURE[0] in good.sentence
    bad = fig7.conclude(five(seed, chosen=(0.6, 0.4)))
    assert not bad.agrees and "less often than the lowest in math, " in bad.sentence
    same = fig7.conclude(five(seed, rejected=(0.9, 0.1)))
    assert same.agrees and "don't clearly point to different temperatures" in same.sentence
    mixed = [seed(0.0, chosen=(0.5 - x, 0.5 + x)) for x in (0.1, -0.1, 0.1, -0.1)]
    undecided = fig7.conclude(mixed)
    assert not undecided.agrees and "not clearly more or less often" in undecided.sentence


def table1_seed(noise, adaptive=0.05, reward=0.8):
    return {
        "repeats": [0.4, 0.3, 0.2, 0.1, 0.04],
        "adaptive": adaptive + noise,
        "not_greedy": 0.9,
        "learned_constant": 0.04,
        "fixed_rewards": [0.2, 0.3, 0.5, 0.6, 0.7],
        "reward": reward + noise,
        "learned_constant_reward": 0.7,
    }


def test_table1_compares_repeats_with_greedy_and_with_the_warmest_and_rewards_with_a_constant():
    cold = "that of greedy"
    warm = table1.conclude(five(table1_seed))
    assert warm.agrees and f"below {cold}" in warm.sentence
    assert "above that of the warmest temperature" in warm.sentence
    assert "it is above a learned constant (+0.102" in warm.sentence
    better = table1.conclude(five(table1_seed, adaptive=0.01, reward=0.5))
    assert better.agrees and "below that of the warmest temperature" in better.sentence
    assert "it is below a learned constant" in better.sentence
    worse = table1.conclude(five(table1_seed, adaptive=0.5))
    assert not worse.agrees and f"above {cold}" in worse.sentence
    three = [table1_seed(0.0, around(0.4, n), around(0.7, n)) for n in (0.0, 0.001, 0.002)]
    undecided = table1.conclude(three)
    assert not undecided.agrees and f"not clearly different from {cold}" in undecided.sentence
    assert "it is not clearly different from a learned constant" in undecided.sentence


def test_table1_counts_repeats_in_the_texts_not_in_the_reward(whole):
    for seed in (0, 1):
        numbers = json.loads((whole / "table1" / f"seed_{seed}.json").read_text())["numbers"]
        cold = numbers["repeats"][0]
        # At most as much as the share of different 3-grams, which is one side of the reward.
        assert 0 <= numbers["fixed_rewards"][0] <= 1 - cold + 1e-9 and cold > 0


def table3_seed(noise, vote=0.9, single=0.6, greedy=0.1):
    rates = {"vote": [greedy, 0.5, 0.8, 0.7, 0.6], "single": [greedy, 0.1, 0.2, 0.55, 0.3]}
    heads = {name: {"vote": vote + noise, "single": single} for name in table3.CHOICES}
    of_task = {"train": rates, "test": rates, "best": 3, **heads}
    return {task: of_task for task in table3.HEADS}


def test_table3_takes_the_fixed_temperature_that_was_best_on_training_prompts():
    good = table3.conclude(five(table3_seed))
    rows = named(good)
    assert good.agrees and rows["math_paths: vote at the best fixed (%)"].mean == pytest.approx(70)
    assert rows["math_paths: vote, adaptive - best fixed (points)"].mean == pytest.approx(20.2)
    assert not table3.conclude(five(table3_seed, vote=0.65)).agrees


def test_table3_splits_the_gain_of_a_vote_into_a_better_single_answer_and_what_voting_adds():
    for seeds in (five(table3_seed), five(table3_seed, vote=0.65, single=0.63)):
        rows = named(table3.conclude(seeds))
        for label in ("math_paths: vote, adaptive with 1.2", "math: vote, adaptive"):
            whole, *parts = (
                rows[f"{label} - best fixed{part}"].mean
                for part in (" (points)", ": by the single answer", ": by voting")
            )
            assert sum(parts) == pytest.approx(whole)
    better = table3.conclude(five(table3_seed)).sentence
    assert "+5.0 ± 0.0 by its single answers (better)" in better and "(more)" in better
    assert "above the own single answer (+30.2" in better
    # All of the gain is a better single answer: the votes of the head agree with each other.
    merely = table3.conclude(five(table3_seed, vote=0.75, single=0.752)).sentence
    assert "above the best fixed one" in merely and "(less)" in merely
    worse = table3.conclude(five(table3_seed, vote=0.5, single=0.4)).sentence
    assert "does not agree" in worse and "below the best fixed one" in worse
    assert "by its single answers (worse)" in worse


def test_table3_says_where_greedy_is_the_best_single_answer_as_in_the_paper():
    warm, cold = table3.conclude(five(table3_seed)), table3.conclude(five(table3_seed, greedy=0.8))
    assert "On math greedy is not the best single answer" in warm.sentence
    assert "On math greedy is the best single answer" in cold.sentence
    undecided = [table3_seed(0.0, greedy=around(0.55, n)) for n in (0.0, 0.001, 0.002, 0.003)]
    assert "greedy is not clearly the best" in table3.conclude(undecided).sentence
    # Of all others the one that is best on training prompts, not the one that is lucky on the test.
    lucky = five(table3_seed, greedy=0.8)
    for seed in lucky:
        for task in table3.HEADS:
            luck = {"vote": [0.5] * 5, "single": [0.8, 0.1, 0.95, 0.55, 0.3]}
            seed[task] = seed[task] | {"test": luck}
    assert named(table3.conclude(lucky))[
        "math: single answer, greedy - best other (points)"
    ].mean == pytest.approx(25)


@pytest.mark.parametrize("task", table3.HEADS)
def test_table3_says_if_one_of_its_heads_alone_does_not_gain(task):
    seeds = five(table3_seed)
    for seed in seeds:
        seed[task] = seed[task] | {"adaptive": {"vote": 0.7, "single": 0.6}}
    finding = table3.conclude(seeds)
    assert not finding.agrees and "above the best fixed one (+20.2" in finding.sentence
    assert "not clearly different from the best fixed one (+0.0" in finding.sentence


def table4_seed(noise, greedy=0.8, sampled=0.7, eq11=0.95, cold=0.95, copied="nll"):
    numbers = {"temperatures": [0.0, 1.0], "fixed": [cold, 0.5]}
    for loss in table4.LOSSES:
        low = loss == "nll"
        numbers[loss] = {
            "greedy": greedy if low else (eq11 if loss == "eq11" else 0.95) + noise,
            "sampled": sampled if low else 0.93 + noise,
            "probabilities": [0.6, 0.4] if loss == copied else [0.9 + noise, 0.1 - noise],
            "chosen_share": [0.6, 0.4],
        }
    return numbers


def test_table4_names_each_loss_that_the_nll_is_not_below():
    good = table4.conclude(five(table4_seed))
    assert good.agrees and "by greedy choice the NLL is below Eq. 10 and Eq. 11 (" in good.sentence
    one = table4.conclude(five(table4_seed, eq11=0.7))
    assert not one.agrees and "greedy choice the NLL is above Eq. 11, below Eq. 10" in one.sentence
    assert "below Eq. 10 (+9.8 ± 0.2, -15.2 ± 0.2 points)" in one.sentence  # in the same order
    seeds = [table4_seed(0.0, eq11=around(0.8, n)) for n in (0.0, 0.001, 0.002)]
    undecided = table4.conclude(seeds)
    assert not undecided.agrees
    assert "the NLL is below Eq. 10, not clearly different from Eq. 11" in undecided.sentence


def test_table4_does_not_take_the_sampled_choice_for_the_greedy_one():
    hidden = table4.conclude(five(table4_seed, greedy=0.96))
    assert not hidden.agrees and "by greedy choice the NLL is above Eq. 10" in hidden.sentence
    assert "by sampled choice the NLL is below Eq. 10 and Eq. 11" in hidden.sentence


def test_table4_asks_whether_the_other_losses_find_the_coldest_temperature():
    cold = table4.conclude(five(table4_seed, cold=0.99))
    assert not cold.agrees and "fixed t=0 is above Eq. 10 and Eq. 11" in cold.sentence


def test_the_title_of_table4_says_who_copies_what_was_chosen():
    assert "the NLL copies what was chosen more" in titles(table4, five(table4_seed))[1]
    assert (
        "Eq. 10 copies what was chosen more" in titles(table4, five(table4_seed, copied="eq10"))[1]
    )
    assert "about as far" in titles(table4, five(table4_seed, copied="none"))[1]


def test_table5_agrees_if_both_ways_gain_and_do_not_differ():
    def seed(noise, sampled=0.85):
        noise = noise * (-1) ** round(1000 * noise)
        rewards = {
            f"{level}, {choice}": 0.85 + noise
            for level in table5.LEVELS
            for choice in table5.CHOICES
        }
        return rewards | {"token, sample": sampled, "best constant": 0.75}

    good = table5.conclude(five(seed))
    assert good.agrees and "token-level sample choice above the best constant" in good.sentence
    assert good.sentence.count("does not clearly differ from sampled") == 2
    worse = table5.conclude(five(seed, sampled=0.8))
    assert not worse.agrees
    assert "At token level greedy choice is better than sampled (+0.05" in worse.sentence
    better = table5.conclude(five(seed, sampled=0.9))
    assert not better.agrees and "greedy choice is worse than sampled (-0.05" in better.sentence
    lost = table5.conclude(five(seed, sampled=0.7))
    assert "token-level sample choice below the best constant" in lost.sentence
    undecided = [seed(n, sampled=around(0.75, n)) for n in (0.0, 0.001, 0.002, 0.003)]
    said = table5.conclude(undecided).sentence
    assert "token-level sample choice not clearly different from the best constant" in said


def controls_seed(noise, coin=0.5, wish=0.5):
    noise = noise * (-1) ** round(1000 * noise)
    numbers = {"temperatures": [0.0, 1.0]}
    for name, reward in zip(controls.TASKS, (coin, wish), strict=True):
        temperatures = {"best_temperature": 0.0, "chosen_temperature": 0.9}
        rewards = {"best_constant": 0.5, "reward": reward + noise, "fixed": [0.5, 0.4]}
        numbers[name] = temperatures | rewards
    return numbers


def test_the_controls_tell_a_loss_and_a_gain_from_neither_on_each_task():
    as_it_must = controls.conclude(five(controls_seed))
    assert as_it_must.agrees and as_it_must.sentence.count("neither clearly gains nor loses") == 2
    assert "nothing clearly was" in as_it_must.sentence and "don't trust" not in as_it_must.sentence
    lost = controls.conclude(five(controls_seed, wish=0.45))
    assert lost.agrees and "On hidden_wish the head loses (-0.05" in lost.sentence
    assert "LPO doesn't maximise the mean reward" in lost.sentence
    assert "On coin_flip the head neither" in lost.sentence
    assert "nothing clearly was" not in lost.sentence


@pytest.mark.parametrize("rewards", [{"coin": 0.6}, {"wish": 0.6}, {"coin": 0.4}])
def test_the_controls_sound_the_alarm_if_anything_is_gained_or_if_a_coin_makes_a_difference(
    rewards,
):
    alarm = controls.conclude(five(controls_seed, **rewards))
    assert not alarm.agrees and "don't trust" in alarm.sentence


def test_the_controls_say_nothing_of_a_single_seed_and_their_titles_say_what_their_rows_do():
    one = controls.conclude([controls_seed(0.0, wish=0.2)])
    assert one.sentence.count("neither clearly gains nor loses") == 2 and not one.agrees
    said = titles(controls, five(controls_seed, wish=0.45))
    assert said[0].startswith("coin_flip: the head neither clearly gains nor loses")
    assert said[1].startswith("hidden_wish: the head loses (-0.05")

"""The paper in miniature: files, resuming, bad input, and what is concluded from given numbers."""

import importlib
import json
import shutil

import numpy as np
import pytest
import torch

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
from minilpo.experiments.base import Row, mean_and_half, text_table
from minilpo.experiments.lab import MIXTURE
from minilpo.experiments.reproduce import experiment
from minilpo.machine.files import load_tensors, save_tensors, write_sealed_json
from minilpo.tasks import MAIN, OTHERS
from tests.outside import fails, files_of

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
    folders = list((whole / "cache").iterdir())  # two per seed: the second is that of `safe_bet`
    assert len(list((whole / "cache").glob("*/language_model/model.pt"))) == len(folders) == 4
    per_model = sorted(len(list(folder.glob("head_*.pt"))) for folder in folders)
    # The control's six; mixture, table1, table3, table4, controls, and the mixture in other pairs.
    assert per_model == [6] * 2 + [2 + 1 + 2 + 4 + 2 + 4] * 2
    tasks = json.loads((whole / "reproduce.json").read_text())["tasks"]
    assert tasks == [task.name for task in MAIN + OTHERS]  # `safe_bet` changes no language model


def test_missing_seeds_are_made_and_everything_else_is_kept(out, whole, monkeypatch):
    (out / "table4" / "seed_1.json").unlink()
    (out / "fig7" / "result.json").unlink()
    shutil.rmtree(next((out / "cache").glob("seed_0_*")))  # not needed again
    assert main(["reproduce", "all", "--seeds", "2", "--out", str(out), *TINY]) == 0
    assert results_of(out) == results_of(whole)


def test_the_page_shows_every_experiment_of_the_folder_not_only_the_one_just_asked_for(
    out, whole, capsys
):
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert all(f">{name}</h2>" in page for name in EXPERIMENTS) and page.count("<img ") == 11
    (out / "report.html").unlink()
    assert main(["reproduce", "fig7", "--seeds", "2", "--out", str(out), *TINY]) == 0
    assert (out / "report.html").read_text(encoding="utf-8") == page
    (out / "table4" / "seed_1.json").write_text("damaged")
    (out / "mine").mkdir()
    (out / "mine" / "seed_0.json").write_text("no experiment")
    capsys.readouterr()
    assert main(["reproduce", "fig7", "--seeds", "2", "--out", str(out), *TINY]) == 0
    rest = (out / "report.html").read_text(encoding="utf-8")
    assert ">table4</h2>" not in rest and rest.count("<img ") == 10  # nothing damaged is believed
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
        (["fig3", "--seeds", "0"], "--seeds must be from 1 to 1,000, got 0"),
        (["fig3", "--seeds", "few"], "--seeds"),
        (["fig3", "--steps", "0"], "--steps must be at least 1"),
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
    assert "must hold seed 0 of fig4" in fails(
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
    cache = next((out / "cache").glob("seed_0_*"))
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
    for spoil in (
        lambda state: state["head"]["mlp.0.bias"].fill_(torch.nan),
        lambda state: state.pop("log"),
    ):
        for path in heads:
            state = load_tensors(path)
            spoil(state)
            save_tensors(path, state)
        assert "head_" in fails(capsys, *command)
        for path, data in heads.items():
            path.write_bytes(data)
    for strange in ({}, {"rows": 3}):
        write_sealed_json(numbers, {"experiment": "table4", "seed": 1, "numbers": strange})
        assert "table4" in fails(capsys, *command)
    shutil.copy(whole / "table4" / "seed_1.json", numbers)
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


def five(make):
    """Five seeds that differ a little."""
    return [make(0.001 * seed) for seed in range(5)]


def named(finding):
    return {row.label: row for row in finding.rows}


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
    assert good.agrees and "less than its sequence level" in good.sentence
    rows = named(good)
    assert rows["token - oracle"].mean == pytest.approx(0.102) and rows[
        "token - sequence"
    ].mean == pytest.approx(0.08)
    parts = rows["token: found a better constant"].mean + rows["token: adapted to the context"].mean
    assert parts == pytest.approx(rows["token - best constant"].mean)
    bad = fig3.conclude(five(lambda noise: fig3_seed(noise, token=0.8, wins=0.4)))
    assert not bad.agrees and "0 of 4" in bad.sentence and "doesn't gain more" in bad.sentence


def test_fig4_asks_for_the_order_of_the_tasks_and_for_the_widest():
    def seed(noise, math=0.0, instruct=0.5):
        shares = {
            "math": [1 - math, math],
            "instruct": [1 - instruct - noise, instruct + noise],
            "story": [0.0, 1.0],
        }
        return {
            "temperatures": [0.0, 1.0],
            "shares": shares | {"constrained_story": [0.1, 0.9]},
            "one_right_answer": 0.1,
            "open": 0.9,
        }

    assert fig4.conclude(five(seed)).agrees
    assert not fig4.conclude(five(lambda noise: seed(noise, math=0.9))).agrees
    assert not fig4.conclude(five(lambda noise: seed(noise, instruct=0.02))).agrees


def test_fig5_measures_how_far_it_is_to_the_best_two_temperatures():
    def seed(noise, first=0.1, reward=0.86):
        return {
            "temperatures": [0.0, 1.0],
            "fixed": [0.4, 0.6],
            "best_constant": 0.6,
            "two_temperatures": {"first": 0.0, "rest": 1.0, "reward": 0.9},
            "reward": reward + noise,
            "win_rates": [0.7, 0.6],
            "first_word_temperature": first,
            "other_temperature": 0.6 + noise,
        }

    good = fig5.conclude(five(seed))
    assert good.agrees and named(good)[
        "share of the way to the two temperatures"
    ].mean == pytest.approx(0.262 / 0.3)
    assert not fig5.conclude(five(lambda noise: seed(noise, first=0.7))).agrees
    assert not fig5.conclude(five(lambda noise: seed(noise, reward=0.5))).agrees


def test_fig6_compares_the_first_word_with_the_rest():
    def seed(noise, first=0.1):
        places = {"first_word_temperature": first + noise, "other_temperature": 0.6}
        return {name: places | {"strips": []} for name in MIXTURE}

    assert (
        fig6.conclude(five(seed)).agrees
        and not fig6.conclude(five(lambda noise: seed(noise, 0.8))).agrees
    )


def test_fig7_tells_what_was_chosen_most_from_what_was_chosen_most_for_once_rejected():
    def seed(noise, chosen=(0.3, 0.7)):
        return {
            "temperatures": [0.0, 1.0],
            "chosen": {name: [chosen[0] - noise, chosen[1] + noise] for name in MIXTURE},
            "rejected": {name: [0.1, 0.9] for name in MIXTURE},
        }

    good = fig7.conclude(five(seed))
    assert good.agrees and named(good)["math: chosen most often"].mean == 1
    assert named(good)["math: most often chosen for once rejected"].mean == 0
    assert not fig7.conclude(five(lambda noise: seed(noise, (0.6, 0.4)))).agrees


def test_table1_says_if_the_warmest_temperature_alone_does_as_well():
    def seed(noise, adaptive=0.05):
        return {
            "repeats": [0.4, 0.3, 0.2, 0.1, 0.04],
            "adaptive": adaptive + noise,
            "not_greedy": 0.9,
            "learned_constant": 0.04,
        }

    warm = table1.conclude(five(seed))
    assert warm.agrees and "as well or better" in warm.sentence
    assert (
        "also repeats itself less"
        in table1.conclude(five(lambda noise: seed(noise, 0.01))).sentence
    )
    assert not table1.conclude(five(lambda noise: seed(noise, 0.5))).agrees


def test_table3_takes_the_fixed_temperature_that_was_best_on_training_prompts():
    def seed(noise, vote=0.9):
        rates = {"vote": [0.1, 0.5, 0.8, 0.7, 0.6], "single": [0.1] * 5}
        numbers = {"train": rates, "test": rates, "best": 3}
        return numbers | {name: {"vote": vote + noise, "single": 0.6} for name in table3.CHOICES}

    good = table3.conclude(five(seed))
    assert good.agrees and named(good)["vote at the best fixed (%)"].mean == pytest.approx(70)
    assert named(good)["vote, adaptive - best fixed (points)"].mean == pytest.approx(20.2)
    assert not table3.conclude(five(lambda noise: seed(noise, 0.65))).agrees


def test_table4_finds_the_nll_below_greedily_or_at_least_when_sampled_from():
    def seed(noise, greedy=0.8, sampled=0.7):
        numbers = {"temperatures": [0.0, 1.0], "fixed": [0.95, 0.5]}
        for loss in table4.LOSSES:
            low = loss == "nll"
            numbers[loss] = {
                "greedy": greedy if low else 0.95 + noise,
                "sampled": sampled if low else 0.93 + noise,
            }
        return numbers

    assert "stays below" in table4.conclude(five(seed)).sentence
    hidden = table4.conclude(five(lambda noise: seed(noise, greedy=0.952)))
    assert hidden.agrees and "sampled from" in hidden.sentence
    assert not table4.conclude(five(lambda noise: seed(noise, 0.952, 0.932))).agrees


def test_table5_agrees_if_both_ways_gain_and_do_not_differ():
    def seed(noise, sampled=0.85):
        noise = noise * (-1) ** round(1000 * noise)
        rewards = {
            f"{level}, {choice}": 0.85 + noise
            for level in table5.LEVELS
            for choice in table5.CHOICES
        }
        return rewards | {"token, sample": sampled, "best constant": 0.75}

    assert table5.conclude(five(seed)).agrees
    worse = table5.conclude(five(lambda noise: seed(noise, 0.8)))
    assert not worse.agrees and "token level they differ" in worse.sentence
    assert "Not every way" in table5.conclude(five(lambda noise: seed(noise, 0.7))).sentence


def test_the_controls_sound_the_alarm_if_anything_is_gained():
    def seed(noise, reward=0.5):
        return {
            name: {"best_constant": 0.5, "reward": reward - noise, "fixed": [0.5]}
            for name in controls.TASKS
        }

    assert controls.conclude(five(seed)).agrees
    alarm = controls.conclude(five(lambda noise: seed(noise, 0.6)))
    assert not alarm.agrees and "don't trust" in alarm.sentence

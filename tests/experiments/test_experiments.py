"""`minilpo reproduce`: files, resuming, damage and bad input."""

import json
import shutil
from importlib import import_module

import numpy as np
import pytest

from minilpo.cli import main
from minilpo.evaluation.measure import Measured
from minilpo.experiments import EXPERIMENTS, controls, fig7, pairs, think
from minilpo.experiments.base import over_seeds
from minilpo.experiments.lab import Lab
from minilpo.experiments.methods import HEADS
from minilpo.machine.files import json_bytes, tensor_bytes, tensors_of
from minilpo.rivals.controls import CORPUS
from minilpo.show import plots
from minilpo.tasks import Prompt, load_tasks
from tests.experiments import PNG
from tests.outside import fails, files_of, forge

TINY = "--steps 500 --batch-size 16 --learning-rate 0.01 --demonstrations 8000 --warmup-steps 5 "
TINY += "--n-layer 1 --n-embd 32 --n-head 2 --rounds 1 --prompts 64 --samples 8 --epochs 1 "
TINY += "--validation-prompts 2 --test-prompts 8 --selection-prompts 4 --ood-prompts 4"


def command(name, out, seeds=2):
    return ["reproduce", name, "--seeds", str(seeds), "--out", str(out), *TINY.split()]


def results_of(folder):
    """Every file's bytes but those of the cache, which holds timings."""
    return {name: data for name, data in files_of(folder).items() if not name.startswith("cache")}


def numbers_of(folder, name):
    """The numbers of both seeds."""
    files = [folder / name / f"seed_{seed}.json" for seed in (0, 1)]
    return [json.loads(file.read_text())["numbers"] for file in files]


@pytest.fixture(scope="module", autouse=True)
def smaller():
    """Less of what other tests look at: the two small language models, the example, figures."""
    with pytest.MonkeyPatch.context() as patch:
        for module, steps, demonstrations in ((pairs, 150, 2000), (think, 200, 4000)):
            patch.setattr(module, "STEPS", steps)
            patch.setattr(module, "DEMONSTRATIONS", demonstrations)
        patch.setattr(pairs, "EARNINGS", 64)
        patch.setattr(pairs, "learned", lambda *_: [0.25, 0.25, 0.5])
        patch.setattr(plots, "png", lambda figure: PNG)
        yield


@pytest.fixture(scope="module")
def whole(smaller, tmp_path_factory):
    """Every experiment with two seeds."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(command("all", out)) == 0
    return out


@pytest.fixture
def out(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "out")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_leaves_numbers_a_table_and_a_figure(whole, name):
    result = json.loads((whole / name / "result.json").read_text())
    table = (whole / name / "table.txt").read_text()
    assert (result["experiment"], result["seeds"]) == (name, 2)
    assert type(result["agrees"]) is bool and result["sentence"] in table
    for row in result["rows"]:
        assert len(row["seeds"]) == 2 and row["mean"] == pytest.approx(np.mean(row["seeds"]))
        assert row["ci95"][0] <= row["mean"] <= row["ci95"][1]
        assert row["label"] in table and row["paper"] in table
    assert (whole / name / "figure.png").read_bytes() == PNG
    figure = import_module(f"minilpo.experiments.{name}").draw(over_seeds(numbers_of(whole, name)))
    figure.draw_without_rendering()


def test_the_strips_are_a_quiet_page_and_plain_text(whole):
    assert "<script" not in (whole / "fig6" / "strip.html").read_text()
    assert (whole / "fig6" / "strip.txt").read_text().count("[0") > 20


def test_table1_counts_repeats_in_the_texts_not_in_the_reward(whole):
    for numbers in numbers_of(whole, "table1"):
        cold = numbers["repeats"][0]
        # At most as much as the share of different 3-grams, which is one side of the reward.
        assert 0 <= numbers["fixed_rewards"][0] <= 1 - cold + 1e-9 and cold > 0


def test_the_tables_are_printed(whole, capsys):
    assert main(command("table5", whole)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith((whole / "table5" / "table.txt").read_text())
    assert str(whole) in printed


def test_one_language_model_and_one_head_of_each_kind_serve_all_experiments(whole):
    # Three per seed: `safe_bet` and `think_or_answer` have their own, with six heads and two.
    folders = list((whole / "cache").iterdir())
    assert len(list((whole / "cache").glob("*/language_model/model.pt"))) == len(folders) == 6
    per_model = sorted(len(list(folder.glob("head_*.pt"))) for folder in folders)
    # Mixture, table1, table3, table4, controls, rivals' heads and four early ones, and the mixture
    # in other pairs.
    assert per_model == [2] * 2 + [6] * 2 + [2 + 1 + 3 + 4 + 2 + len(HEADS) + 4 + 4] * 2
    tasks = json.loads((whole / "reproduce.json").read_text())["tasks"]
    assert tasks == [task.name for task in CORPUS]  # those apart change no language model


def test_an_interrupted_reproduction_makes_what_is_missing_and_keeps_everything_else(
    out, whole, monkeypatch, capsys
):
    for missing in ("table4/seed_1.json", "controls/seed_1.json", "fig7/result.json"):
        (out / missing).unlink()
    for folder in (out / "cache").glob("seed_0_*"):
        shutil.rmtree(folder)  # not needed again

    def stop(lab):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(controls, "measure", stop)
        assert main(command("all", out)) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert main(command("all", out)) == 0
    assert results_of(out) == results_of(whole)


def test_the_page_shows_every_experiment_of_the_folder_not_only_the_one_just_asked_for(
    out, whole, capsys
):
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert all(f">{name}</h2>" in page for name in EXPERIMENTS)
    assert page.count("<img ") == len(EXPERIMENTS)
    (out / "report.html").unlink()
    assert main(command("fig7", out)) == 0
    assert (out / "report.html").read_text(encoding="utf-8") == page
    (out / "table4" / "seed_1.json").write_text("damaged")
    (out / "mine").mkdir()
    (out / "mine" / "seed_0.json").write_text("no experiment")
    assert main(command("fig7", out)) == 0
    rest = (out / "report.html").read_text(encoding="utf-8")
    # Nothing damaged.
    assert ">table4</h2>" not in rest and rest.count("<img ") == len(EXPERIMENTS) - 1
    assert "leaves out table4" in capsys.readouterr().err


def test_more_seeds_later_are_the_same_as_at_once(out, whole):
    (out / "fig7" / "seed_1.json").unlink()
    for seeds in (1, 2):
        assert main(command("fig7", out, seeds)) == 0
        said = json.loads((out / "fig7" / "result.json").read_text())["sentence"]
        assert said.startswith("A single seed") == (seeds == 1)
    assert files_of(out / "fig7") == files_of(whole / "fig7")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["fig99"], "fig99"),
        ([], "NAME"),
        (["fig3", "--seeds", "0"], "must be from 1 to 1,000, got 0"),
        (["fig3", "--seeds", "few"], "--seeds"),
        (["fig3", "--steps", "0"], "--steps must be from 1 to"),
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
    assert "other settings" in fails(capsys, *command("fig3", out), "--beta", "2")
    assert files_of(out) == before
    shutil.copy(out / "fig3" / "seed_0.json", out / "fig4" / "seed_0.json")
    assert "fig4/seed_0.json must be the file that record.json names" in fails(
        capsys, *command("fig4", out)
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "empty" in fails(capsys, *command("fig3", tmp_path / "mine"))


def test_nothing_damaged_in_a_reproduction_is_believed(out, whole, capsys):
    again, numbers = command("table4", out), "table4/seed_1.json"
    (out / "table4" / "seed_0.json").unlink()  # so that heads and language model are needed again
    # Of the language models of this seed, that of all tasks has the most heads.
    cache = max((out / "cache").glob("seed_0_*"), key=lambda p: len(list(p.glob("head_*.pt"))))
    heads = {path: path.read_bytes() for path in cache.glob("head_*.pt")}
    files = {path: path.read_bytes() for path in (out / "reproduce.json", out / numbers)} | heads
    for paths in ([out / "reproduce.json"], [out / numbers], heads):
        for path in paths:
            data = bytearray(files[path])
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        said = fails(capsys, *again)
        assert any(path.name in said for path in paths)
        for path in paths:
            path.write_bytes(files[path])
    # With a checksum that fits, as another version may have left them.
    for path, data in heads.items():
        forge(cache, path.name, tensor_bytes({**tensors_of(data), "head": {}}))
    assert "head_" in fails(capsys, *again)
    for path, data in heads.items():
        forge(cache, path.name, data)
    for strange in ({}, {"rows": 3}):
        forge(out, numbers, json_bytes({"numbers": strange}))
        assert "table4" in fails(capsys, *again)
    forge(out, numbers, files[out / numbers])
    (cache / "language_model" / "model.pt").write_bytes(b"damaged")  # is made again, to the bit
    assert main(again) == 0
    assert results_of(out) == results_of(whole)


def test_a_second_reproduction_in_the_same_folder_is_told_so(out, monkeypatch, capsys):
    pytest.importorskip("fcntl", reason="this system has no such locks")
    (out / "fig7" / "seed_1.json").unlink()
    again = command("fig7", out)

    def measure(lab, real=fig7.measure):
        assert main(again) == 2 and "at work" in capsys.readouterr().err
        return real(lab)

    monkeypatch.setattr(fig7, "measure", measure)
    assert main(again) == 0


def test_the_best_constant_is_one_temperature_chosen_on_training_prompts():
    rewards = {  # of two prompts at three temperatures; the third is best for neither test prompt
        "train": [[0.0, 0.5, 0.75], [1.0, 0.25, 0.5]],
        "test": [[1.0, 0.0, 0.25], [0.0, 1.0, 0.5]],
    }
    [task] = load_tasks(["math"])
    lab = Lab.__new__(Lab)  # only the rewards at fixed temperatures matter here
    lab.fixed = lambda split, tasks: Measured(
        [Prompt("", task)] * 2, None, np.arange(3)[:, None], np.array(rewards[split])[:, :, None]
    )
    assert lab.constant_rewards().tolist() == [0.25, 0.5]
    assert lab.rewards_at("math") == {"fixed": [0.5, 0.5, 0.375], "best_constant": 0.375}

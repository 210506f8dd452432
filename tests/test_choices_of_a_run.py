"""A head that chooses among settings, from the command line to everything that a person sees."""

import json
import re

import pytest

from minilpo.cli import main
from minilpo.run.folder import Run
from minilpo.show.strip import html_page, terminal
from minilpo.tasks import load_tasks
from tests.outside import TINY, fails, files_of, interrupt_after

FLAGS = [*TINY[: TINY.index("--temperatures")], "--choices", "1.2,min_p=.1", "0", "1.2"]
NAMES = ["0", "1.2, min-p 0.1", "1.2"]
PROMPT = "Tell me a story of three sentences about a fox in the forest."


@pytest.fixture(scope="module", params=["sequence", "token"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    assert main(["demo", "--out", str(folder), "--level", request.param, *FLAGS]) == 0
    return request.param, folder


def test_the_files_name_the_settings_and_keep_their_temperatures(made):
    _, folder = made
    config = json.loads((folder / "config.json").read_text())
    assert config["choices"] == ["0", "1.2,min_p=0.1", "1.2"]
    assert config["temperatures"] == [0.0, 1.2, 1.2]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["choices"] == NAMES and metrics["temperatures"] == [0.0, 1.2, 1.2]
    assert list(metrics["win_rate"]) == NAMES == list(metrics["win_rate_ci95"])
    best = metrics["mean"]["best_fixed"]
    k = NAMES.index(best["name"])
    wanted = metrics["temperatures"][k], metrics["mean"]["fixed"][k]
    assert (best["temperature"], best["reward"]) == wanted
    for task in metrics["tasks"].values():
        assert len(task["histogram"]) == len(task["fixed"]) == 3
        assert task["oracle"] == task["fixed"][NAMES.index(task["oracle_name"])]


def test_figures_examples_and_page_show_the_names(made):
    level, folder = made
    words = (folder / "figures" / "descriptions.txt").read_text()
    assert "each fixed temperature" in words and "1.2, min-p 0.1: " in words
    examples = (folder / "examples.txt").read_text()
    assert "fixed t=0," in examples and "fixed t=1.2," in examples
    head = {re.sub(", reward.*", "", said) for said in re.findall("head, t=(.*)", examples)}
    assert all(said in NAMES if level == "sequence" else " on average" in said for said in head)
    page = (folder / "report.html").read_text()
    for said in ("Temperature: ", "t=1.2, min-p 0.1", "min_p those at least so likely"):
        assert said in page


def test_a_word_shows_its_setting_wherever_it_is_shown(made, tmp_path, capsys):
    level, folder = made
    capsys.readouterr()
    page = tmp_path / "words.html"
    assert main(["sample", "--run", str(folder), PROMPT, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert set(re.findall(r"\w\[(.*?)\]", said)) <= set(NAMES)
    if level == "sequence":
        assert re.search(r"\(the head says 0: \d+%; 1\.2, min-p 0\.1: \d+%; 1", said)
    assert all(f">{name}<" in page.read_text() for name in NAMES)


def test_a_finished_run_started_again_keeps_its_bytes_in_whatever_order_choices_are_given(made):
    (level, folder), before = made, files_of(made[1])
    again = [*FLAGS[:-3], "1.2", "0.0", "1.2,min_p=0.10"]
    assert main(["demo", "--out", str(folder), "--level", level, *again]) == 0
    assert main(["pretrain", "--run", str(folder)]) == 0
    assert files_of(folder) == before


def test_an_interrupted_run_goes_on_to_the_same_bytes(made, tmp_path):
    level, folder = made
    command = ["demo", "--out", str(tmp_path / "run"), "--level", level, *FLAGS]
    interrupt_after("lpo_state.pt", command)
    assert main(command) == 0
    assert files_of(tmp_path / "run") == files_of(folder)


def test_a_run_with_other_choices_is_left_alone(made, capsys):
    level, folder = made
    before = files_of(folder)
    given = ["demo", "--out", folder, "--level", level]
    other = [*FLAGS[:-3], "0", "1.2,min_p=0.2", "1.2"]
    said = fails(capsys, *given, *other)
    assert "--choices 0 1.2,min_p=0.1 1.2, not 0 1.2,min_p=0.2 1.2" in said
    plain = [*FLAGS[:-4], "--temperatures", "0", "1.2"]
    for command in ([*given, *plain], ["pretrain", "--run", folder, "--temperatures", "0", "1.2"]):
        assert "--choices 0 1.2,min_p=0.1 1.2, not left out" in fails(capsys, *command)
    assert files_of(folder) == before


def test_both_flags_together_are_refused_also_with_the_default_temperatures(tmp_path, capsys):
    flags = "--temperatures 0 0.2 0.4 0.6 0.8 1 --choices 0 1,top_p=0.9".split()
    said = fails(capsys, "demo", "--out", tmp_path / "run", *flags)
    assert "--temperatures and --choices must not be given together" in said
    assert not list(tmp_path.iterdir())


def test_the_page_to_play_with_gets_names_and_colours_that_tell_settings_apart(made):
    from minilpo.play.table import Table

    _, folder = made
    run = Run.open(folder)
    table = Table(run.language_model(), load_tasks(["story"]), run.head(), run.choices, "mine")
    about = table.answer("about", {})
    assert [one["name"] for one in about["temperatures"]] == NAMES
    assert [one["value"] for one in about["temperatures"]] == [0.0, 1.2, 1.2]
    colour_of = {one["name"]: one["colour"] for one in about["temperatures"]}
    assert len(set(colour_of.values())) == 3
    asked = {"prompt": PROMPT, "picked_from": "story", "seed": 0}
    for fixed in (None, 1.2):
        for word in table.answer("write", {**asked, "fixed": fixed})["words"]:
            assert word["colour"] == colour_of[word["name"]] if fixed is None else word["colour"]


def test_a_strip_of_settings_has_a_colour_and_a_name_for_each():
    from minilpo.show.strip import Strip, background, plain

    strip = Strip("Speak!", [" The", " fox", "."], [0, 1, 2], NAMES)
    assert plain(strip) == "The[0] fox[1.2, min-p 0.1].[1.2]"
    assert len({background(k, 3) for k in range(3)}) == 3
    assert [re.sub("\x1b.*?m", "", part) for part in terminal(strip).split("\n\n")] == [
        " The fox.",
        "temperature: 0; 1.2, min-p 0.1; 1.2",
    ]
    assert html_page([strip], "Words").count("<small>1.2, min-p 0.1</small>") == 1

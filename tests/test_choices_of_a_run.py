"""A head that chooses among settings, from the command line to everything that a person sees."""

import json
import re

import pytest

from minilpo.cli import main
from minilpo.play.table import Table
from minilpo.run.folder import Run
from minilpo.show.strip import Strip, background, html_page, plain, terminal
from minilpo.tasks import load_tasks
from tests.outside import TINY, fails, files_of, interrupt_after

pytestmark = pytest.mark.usefixtures("figures_undrawn")
SMALL = TINY[: TINY.index("--temperatures")]
FLAGS = [*SMALL, "--choices", "1.2,min_p=.1", "0", "1.2"]
NAMES = ["0", "1.2, min-p 0.1", "1.2"]
PROMPT = "Tell me a story of three sentences about a fox in the forest."


def demo(folder, *flags):
    return ["demo", "--out", str(folder), *flags]


@pytest.fixture(scope="module")
def folder(figures_undrawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(demo(folder, *FLAGS)) == 0
    return folder


def names_shown(folder, capsys) -> tuple[str, set[str]]:
    """What is said of one response, and the names that examples give to the head's choices."""
    capsys.readouterr()
    page = folder.parent / "words.html"
    assert main(["sample", "--run", str(folder), PROMPT, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert {*re.findall(r"\w\[(.*?)\]", said)} <= {*NAMES}
    assert all(f">{name}<" in page.read_text() for name in NAMES)
    examples = (folder / "examples.txt").read_text()
    assert "fixed t=0," in examples and "fixed t=1.2," in examples
    return said, {*re.findall("head, t=(.*?)(?:, reward.*)", examples)}


def test_the_files_name_the_settings_and_keep_their_temperatures(folder):
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


def test_figures_examples_page_and_sample_show_the_names(folder, capsys):
    words = (folder / "figures" / "descriptions.txt").read_text()
    assert "each fixed temperature" in words and "1.2, min-p 0.1: " in words
    page = (folder / "report.html").read_text()
    for said in ("Temperature: ", "t=1.2, min-p 0.1", "min_p those at least so likely"):
        assert said in page
    said, of_head = names_shown(folder, capsys)
    assert re.search(r"\(the head says 0: \d+%; 1\.2, min-p 0\.1: \d+%; 1", said)
    assert of_head and of_head <= {*NAMES}


def test_at_token_level_too(tmp_path, capsys):
    assert main(demo(tmp_path / "run", *FLAGS, "--level", "token")) == 0
    _, of_head = names_shown(tmp_path / "run", capsys)
    assert of_head and all(said.endswith(" on average") for said in of_head)


def test_an_interrupted_run_goes_on_to_the_same_bytes_in_whatever_order_choices_are_given(
    folder, tmp_path
):
    interrupt_after("lpo_state.pt", demo(tmp_path / "run", *FLAGS))
    again = [*FLAGS[:-3], "1.2", "0.0", "1.2,min_p=0.10"]
    assert main(demo(tmp_path / "run", *again)) == 0
    assert main(["pretrain", "--run", str(tmp_path / "run")]) == 0
    assert files_of(tmp_path / "run") == files_of(folder)


def test_a_run_with_other_choices_is_left_alone(folder, capsys):
    before = files_of(folder)
    said = fails(capsys, *demo(folder, *FLAGS[:-3], "0", "1.2,min_p=0.2", "1.2"))
    assert "--choices 0 1.2,min_p=0.1 1.2, not 0 1.2,min_p=0.2 1.2" in said
    plain = ["--temperatures", "0", "1.2"]
    for command in (demo(folder, *SMALL, *plain), ["pretrain", "--run", folder, *plain]):
        assert "--choices 0 1.2,min_p=0.1 1.2, not left out" in fails(capsys, *command)
    assert files_of(folder) == before


def test_both_flags_together_are_refused_also_with_the_default_temperatures(tmp_path, capsys):
    flags = "--temperatures 0 0.2 0.4 0.6 0.8 1 --choices 0 1,top_p=0.9".split()
    said = fails(capsys, *demo(tmp_path / "run", *flags))
    assert "--temperatures and --choices must not be given together" in said
    assert not list(tmp_path.iterdir())


def test_the_page_to_play_with_gets_names_and_colours_that_tell_settings_apart(folder):
    run = Run.open(folder)
    table = Table(run.language_model(), load_tasks(["story"]), run.head(), run.choices, "mine")
    about = table.answer("about", {})["temperatures"]
    assert [one["name"] for one in about] == NAMES
    assert [one["value"] for one in about] == [0.0, 1.2, 1.2]
    colour_of = {one["name"]: one["colour"] for one in about}
    assert len(set(colour_of.values())) == 3
    asked = {"prompt": PROMPT, "picked_from": "story", "seed": 0}
    for word in table.answer("write", {**asked, "fixed": None})["words"]:
        assert word["colour"] == colour_of[word["name"]]


def test_a_strip_of_settings_has_a_colour_and_a_name_for_each():
    strip = Strip("Speak!", [" The", " fox", "."], [0, 1, 2], NAMES)
    assert plain(strip) == "The[0] fox[1.2, min-p 0.1].[1.2]"
    assert len({background(k, 3) for k in range(3)}) == 3
    assert [re.sub("\x1b.*?m", "", part) for part in terminal(strip).split("\n\n")] == [
        " The fox.",
        "temperature: 0; 1.2, min-p 0.1; 1.2",
    ]
    assert html_page([strip], "Words").count("<small>1.2, min-p 0.1</small>") == 1

"""The language model of the lessons: trained once, found again, elsewhere if one wants it so."""

import sys
from pathlib import Path

import pytest

from minilpo.config import ModelConfig, PretrainConfig, RunConfig
from minilpo.course import home as course_home
from minilpo.course.home import home, trained_run

TINY = RunConfig(
    tasks=("math", "story"),
    model=ModelConfig(n_layer=1, n_head=1, n_embd=8),
    pretrain=PretrainConfig(steps=3, batch_size=2, demonstrations=300, warmup_steps=1),
)


@pytest.fixture
def tiny_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILPO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(course_home, "CONFIG", TINY)
    return tmp_path / "home"


def test_the_variable_moves_the_cache(tiny_home):
    assert trained_run().path.parent == tiny_home == home()


def test_the_model_is_trained_once_and_found_again(tiny_home, monkeypatch):
    weights = (trained_run().path / "model.pt").read_bytes()

    def refuse(*arguments, **named):
        raise AssertionError("trained again")

    monkeypatch.setattr(course_home, "pretrain_step", refuse)
    again = trained_run()
    assert again.is_done("pretrain") and (again.path / "model.pt").read_bytes() == weights


def test_an_interrupted_training_is_taken_up(tiny_home, monkeypatch):
    def interrupt(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(course_home, "pretrain_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained_run()
    assert trained_run().is_done("pretrain")


def test_what_somebody_else_keeps_there_is_not_touched(tiny_home):
    path = tiny_home / f"lessons-{course_home.FORMAT}"
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be a new or empty folder"):
        trained_run()
    assert (path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("platform", "variables", "place"),
    [
        ("linux", {"XDG_CACHE_HOME": "/c"}, Path("/c/minilpo")),
        ("linux", {"XDG_CACHE_HOME": ""}, Path.home() / ".cache" / "minilpo"),
        ("darwin", {}, Path.home() / "Library" / "Caches" / "minilpo"),
        ("win32", {"LOCALAPPDATA": "/l"}, Path("/l/minilpo")),
    ],
)
def test_without_it_every_system_has_its_own_place(platform, variables, place, monkeypatch):
    monkeypatch.delenv("MINILPO_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert home() == place

"""The command line: from nothing to results, the same bytes twice, and one clear line for
everything that can go wrong.
"""

import contextlib
import errno
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minilpo.cli import COMMANDS, main
from minilpo.run.folder import Run
from minilpo.tasks import load_tasks, split_of
from tests.outside import RESULTS, TINY, fails, files_of, run_of

BEE, STORY = (
    "Where does the bee live?",
    "Tell me a story of three sentences about a fox in the forest.",
)
PRETRAIN = TINY[: TINY.index("--rounds")]
pytestmark = pytest.mark.usefixtures("figures_undrawn")


@pytest.fixture(scope="module")
def made(figures_undrawn, tmp_path_factory):
    """A finished run, and what was said on standard error meanwhile."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        folder = run_of(tmp_path_factory.mktemp("runs") / "demo")
    return folder, said.getvalue()


@pytest.fixture(scope="module")
def demo(made):
    return made[0]


@pytest.fixture
def run(demo, tmp_path):
    """A copy of the finished run, to be spoiled."""
    return Path(shutil.copytree(demo, tmp_path / "run"))


def settings_of(run):
    return json.loads((run / "config.json").read_text())


def test_demo_writes_what_the_contract_names(demo):
    assert set(files_of(demo)) == RESULTS
    config, metrics = settings_of(demo), json.loads((demo / "metrics.json").read_text())
    assert config["model"].keys() >= {"vocab_size", "n_layer", "n_head", "n_embd", "block_size"}
    assert config["model"]["vocab_size"] > 100 and config["pretrain"]["batch_size"] == 16
    assert (metrics["seed"], metrics["level"]) == (0, "sequence")
    assert metrics["temperatures"] == [0.0, 0.5, 1.0]
    assert list(metrics["win_rate"]) == ["0.0", "0.5", "1.0"]
    seconds = metrics["seconds"]
    assert seconds.keys() == {"pretrain", "rollout", "lpo", "evaluate", "total"}
    assert seconds["total"] == pytest.approx(sum(seconds.values()) / 2)
    assert metrics["tasks"].keys() == {"instruct", "story"} == metrics["ood"]["tasks"].keys()
    for task in metrics["tasks"].values():
        assert task.keys() >= {"fixed", "adaptive", "oracle", "chosen_temperature", "histogram"}
        assert len(task["fixed"]) == 3
    contract = {"fixed", "best_fixed", "adaptive", "oracle", "gain_over_best_fixed", "gap_closed"}
    added = {"best_per_task", "best_per_kind", "gap_closed_ci95"}
    added |= {"gain_over_best_per_task", "gain_over_best_per_kind"}
    assert metrics["mean"].keys() == contract | added
    gain = metrics["mean"]["gain_over_best_fixed"]
    assert gain["ci95"][0] <= gain["estimate"] <= gain["ci95"][1]


def test_a_sentence_of_the_models_own_is_shown_at_every_tenth_of_pretraining(made):
    shown = re.findall(r"pretraining +(\d+)%\| \S.* It answers: \S", made[1])
    assert shown == [str(n) for n in range(10, 101, 10)]


def test_the_steps_one_by_one_without_such_sentences_give_the_same_bytes_as_the_demo(
    demo, tmp_path, capsys, monkeypatch
):
    silent = lambda *_: lambda step: None  # noqa: E731
    monkeypatch.setattr("minilpo.run.steps.answers_while_training", silent)
    measuring = TINY.index("--test-prompts"), TINY.index("--temperatures")
    flags = {
        "pretrain": [*PRETRAIN, *TINY[measuring[1] :]],
        "train": TINY[len(PRETRAIN) : measuring[0]],
        "evaluate": TINY[slice(*measuring)],
    }
    for step in ("pretrain", "train", "pretrain", "evaluate"):  # the second one is done already
        assert main([step, "--run", str(tmp_path / "steps"), *flags[step]]) == 0
        assert "It answers" not in capsys.readouterr().err
    assert files_of(tmp_path / "steps") == files_of(demo)
    assert main(["demo", "--out", str(tmp_path / "steps"), *TINY]) == 0  # all is done already
    assert files_of(tmp_path / "steps") == files_of(demo)


def test_a_run_is_trained_anew_by_other_settings_losses_and_rules_each_with_its_loss(run, capsys):
    train = ["train", "--run", str(run)]
    assert main([*train, "--beta", "0.5"]) == 0
    assert (settings_of(run)["lpo"]["beta"], settings_of(run)["lpo"]["rounds"]) == (0.5, 2)
    assert not (run / "metrics.json").exists()
    assert main([*train, "--loss", "eq9", "--train-lm", "--lm-learning-rate", "0.001"]) == 0
    assert (run / "trained_model.pt").read_bytes() != (run / "model.pt").read_bytes()
    assert main(["evaluate", "--run", str(run)]) == 0
    assert "Eq. 9 trained the words too" in capsys.readouterr().out
    assert main(["sample", "--run", str(run), BEE]) == 0
    for flags in (
        *("eq11", "eq10 --pairs nll", "eq11 --pairs gap", "eq10 --pairs top_bottom"),
        *("default --rule grpo --pairs best_worst", "default --rule regression"),
    ):
        assert main([*train, "--no-train-lm", "--loss", *flags.split()]) == 0
        assert not (run / "trained_model.pt").exists()
    assert settings_of(run)["lpo"]["rule"] == "regression"
    capsys.readouterr()
    assert "--loss eq9" in fails(capsys, *train, "--train-lm", "--loss", "eq10")
    said = fails(capsys, *train, "--rule", "reinforce", "--pairs", "gap")
    assert "leave --pairs at best_worst" in said


def test_a_token_level_run_by_reinforce_shows_a_temperature_per_word_and_goes_back_to_lpo(
    tmp_path, capsys
):
    run = run_of(tmp_path / "run", "--rule", "reinforce", "--level", "token")
    assert RESULTS == set(files_of(run))
    assert "REINFORCE" in (run / "report.html").read_text()
    assert settings_of(run)["lpo"]["loss"] == "eq10"
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert main(["sample", "--run", str(run), STORY, "--html", str(page)]) == 0
    assert re.search(r"\[(0|0\.5|1)\]", capsys.readouterr().out) and STORY in page.read_text()
    assert main(["train", "--run", str(run), "--rule", "lpo"]) == 0
    assert settings_of(run)["lpo"]["loss"] == "eq11"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["demo", "--unknown", "1"], "--unknown"),
        (["dance"], "dance"),
        ([], "COMMAND"),
        (["demo", "--tasks", "cooking"], "cooking"),
        (["demo", "--tasks", "math", "math"], "each once"),
        (["demo", "--tasks", "nowhere.py"], "nowhere.py"),
        (["demo", "--temperatures", "0.5", "0.2"], "got 0.5 before 0.2"),
        (["demo", "--temperatures", "warm"], "--temperatures"),
        (["demo", "--steps", "0"], "--steps must be from 1 to 10,000,000, got 0"),
        (["demo", "--steps", "many"], "--steps"),
        (["demo", *TINY, "--block-size", "20"], "--block-size must be at least"),
        (["demo", "--tasks", "story", "--test-prompts", "100000"], "--test-prompts"),
        (["train"], "--run"),
        (["train", "--run", "none"], "make one with: minilpo demo --out "),
        (["evaluate", "--run", "none"], "make one with: minilpo demo --out "),
        (["demo", "--out", "file/run", *TINY], "can't"),
        (["demo", "--out", "file", *TINY], "empty"),
        (["demo", "--out", ".", *TINY], "empty"),
    ],
)
def test_bad_settings_are_one_line_and_leave_no_folder(
    tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    assert said in fails(capsys, *arguments)
    assert files_of(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(
    "name, step", [("model.pt", "pretrain"), ("head.pt", "train"), ("tokenizer.json", "pretrain")]
)
def test_a_run_that_lacks_a_file_says_which_step_makes_it(run, capsys, name, step):
    (run / name).unlink()
    said = fails(capsys, "evaluate", "--run", run)
    assert name in said and f"minilpo {step}" in said


def test_a_run_without_a_head_names_the_command_that_makes_all(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["pretrain", "--run", str(run), *PRETRAIN, "--steps", "9"]) == 0
    capsys.readouterr()
    said = fails(capsys, "sample", "--run", run, BEE)
    assert f"minilpo train --run {run}; minilpo demo makes a run with all files" in said
    with pytest.raises(ValueError, match=r"must hold head\.pt, .*minilpo demo"):
        Run.open(run).head()


def test_a_folder_with_another_run_is_left_alone(run, capsys):
    before = files_of(run)
    assert "--seed 0, not 1" in fails(capsys, "demo", "--out", run, *TINY, "--seed", "1")
    assert files_of(run) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_standard_output_is_one_line(demo, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["sample", "--run", str(demo), BEE]) == 2
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    [said] = capsys.readouterr().err.splitlines()
    assert "No space left" in said


def test_a_full_disk_at_any_time_is_one_line_and_the_run_goes_on_later(
    demo, tmp_path, capsys, monkeypatch
):
    real, run = os.fsync, tmp_path / "run"
    for room in (1, 12):
        left = list(range(room))

        def full_after_a_while(handle, left=left):
            if not left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left.pop()
            real(handle)

        monkeypatch.setattr(os, "fsync", full_after_a_while)
        assert re.search(r"run/.*: No space left", fails(capsys, "demo", "--out", run, *TINY))
        assert not [path for path in run.rglob("*") if path.name.startswith(".")]
    monkeypatch.undo()
    assert main(["demo", "--out", str(run), *TINY]) == 0
    assert files_of(run).keys() == files_of(demo).keys()
    assert (run / "head.pt").read_bytes() == (demo / "head.pt").read_bytes()


@pytest.mark.parametrize(
    "prompt, said",
    [
        ("Tell me about quantum physics.", "got 'quantum'; "),
        ("Tell me a stroy.", "got 'stroy'; near it are 'story'"),
        ("Tell me <sep>", "'<'"),
        ("Tell me a story , please.", "got ','; leave out the space before it; or copy"),
        ("Where does the bee live?the", "got 'the'; put a space before it; or copy"),
    ],
)
def test_an_unknown_word_is_one_line_with_three_prompts_to_copy(demo, capsys, prompt, said):
    got = fails(capsys, "sample", "--run", demo, prompt)
    assert said in got and "minilpo/" not in got
    copied = re.findall("'(.*?)'", got.split("; or copy one of ")[1])
    assert len(copied) == 3 and all(split_of(one) == "test" for one in copied)
    tokenizer = Run.open(demo).tokenizer()
    assert all(map(tokenizer.encode, copied))


ECHO = """
import os
os.chdir({folder!r})
class Echo:
    name = 'echo'
    words = ['yes', 'no', 'maybe']
    def prompt(self, rng): return 'Say ' + ' '.join(rng.choices(self.words, k=rng.randint(2, 7)))
    def demonstration(self, prompt, rng): return ' '.join(rng.choices(self.words, k=len(prompt.split())))
    def reward(self, prompt, response): return response.count('yes') / (1 + len(response.split()))
"""


def test_a_task_file_is_trained_on_moves_no_run_and_never_runs_unasked(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("echo.py").write_text(ECHO.format(folder=str(tmp_path / "elsewhere")))
    without_tasks = [word for word in TINY if word not in ("--tasks", "instruct", "story")]
    assert main(["demo", "--out", "run", "--tasks", "echo.py", *without_tasks]) == 0
    assert "echo" in capsys.readouterr().out
    run = tmp_path / "run"
    assert (run / "metrics.json").exists() and not list((tmp_path / "elsewhere").iterdir())
    monkeypatch.chdir(tmp_path)
    assert "--tasks" in fails(capsys, "evaluate", "--run", run)
    assert main(["evaluate", "--run", str(run), "--tasks", "echo.py"]) == 0


def test_every_command_explains_itself_with_defaults_and_does_the_same_without_docstrings(
    demo, tmp_path, capsys, monkeypatch
):
    """As `python -OO` does, which takes docstrings and assertions away: here only ours."""
    code = f"""
import contextlib
from importlib.machinery import SourceFileLoader
get_code = SourceFileLoader.get_code
def optimized(self, name):
    if name.split(".")[0] != "minilpo":
        return get_code(self, name)
    return compile(self.get_data(self.path), self.path, "exec", optimize=2)
SourceFileLoader.get_code = optimized
from minilpo.cli import main
from minilpo.show import plots
assert main.__doc__ is None
for command in {[*COMMANDS]}:
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
plots.png = lambda fig: b"a figure"
plots.panels = lambda fig, whole: [whole] * len(fig.axes)
main({["demo", "--out", str(tmp_path / "run"), *TINY]})
"""
    monkeypatch.setenv("COLUMNS", "80")
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
    said = capsys.readouterr().out
    assert done.stdout.startswith(said) and "Train the temperature head by LPO." in said
    for default in ("(default: 3000)", "(default: runs/demo)", "(default: minilpo-lessons)"):
        assert default in re.sub(r"\s+", " ", said)
    assert files_of(tmp_path / "run") == files_of(demo)


def test_sample_without_a_prompt_shows_unseen_prompts_of_every_task_to_copy(demo, capsys):
    shown = {}
    for words in ([], ["  "], ["--seed", "1"]):
        assert main(["sample", "--run", str(demo), *words]) == 0
        shown[" ".join(words)], err = capsys.readouterr()
        assert err == ""
    assert shown[""] == shown["  "] != shown["--seed 1"]
    found = re.findall(r"^(\w+):\n((?:  .+\n)+)", shown[""], re.MULTILINE)
    assert [name for name, _ in found] == ["instruct", "story"]
    tokenizer = Run.open(demo).tokenizer()
    for name, lines in found:
        prompts = [shlex.split(line) for line in lines.splitlines()]
        assert len(prompts) == 3 and all(len(prompt) == 1 for prompt in prompts)
        [task] = load_tasks([name])
        for [prompt] in prompts:
            assert task.knows(prompt) and split_of(prompt) == "test" and tokenizer.encode(prompt)


def test_sample_shows_numbers_when_piped_the_reward_if_known_and_compares_with_a_temperature(
    demo, capsys
):
    sample = ["sample", "--run", str(demo)]
    for prompt in (STORY.replace(" ", "  "), STORY):  # whatever the white space
        assert main([*sample, prompt]) == 0
    first, second = capsys.readouterr().out.split("chosen for the whole response", 1)
    assert "\x1b" not in first and re.search(r"\w\[(0|0\.5|1)\]", first) and first in second
    assert main([*sample, STORY, "--temperature", "0.25"]) == 0
    out = capsys.readouterr().out
    told = re.findall(r"^reward: (\d\.\d\d) \(story\)$", out, re.MULTILINE)
    [fixed] = re.findall(r"^at a fixed temperature of 0\.25: (.*)$", out, re.MULTILINE)
    adaptive = re.sub(r"\[[^\]]*\]", "", out.splitlines()[0])
    [task] = load_tasks(["story"])
    assert told == [f"{task.reward(STORY, text):.2f}" for text in (adaptive, fixed)]
    assert main([*sample, "The fox is in the forest."]) == 0
    assert "reward" not in capsys.readouterr().out  # no task has such a prompt
    for value in ("-0.1", "100.5", "nan", "inf"):
        said = fails(capsys, *sample, STORY, f"--temperature={value}")
        assert "temperature must be 0 (greedy) or from 1e-06 to 100, got" in said
    assert "112 tokens" in fails(capsys, *sample, " ".join([BEE] * 40))
    for flags in (["--temperature", "0"], ["--html", "page.html"]):
        said = fails(capsys, *sample, *flags)
        assert "--html and --temperature must come with a prompt, got none" in said

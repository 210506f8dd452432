"""The command line: from nothing to results, the same bytes twice, and one clear line for
everything that can go wrong.
"""

import errno
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from minilpo.cli import COMMANDS, main
from minilpo.run.folder import Run
from minilpo.tasks import load_tasks, split_of
from tests.outside import RESULTS, TINY, fails, files_of, run_of

BEE, STORY = (
    "Where does the bee live?",
    "Tell me a story of three sentences about a fox in the forest.",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "demo"
    assert main(["demo", "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture
def run(demo, tmp_path):
    """A copy of the finished run, to be spoiled."""
    return Path(shutil.copytree(demo, tmp_path / "run"))


def settings_of(run):
    return json.loads((run / "config.json").read_text())


def test_demo_writes_what_the_contract_names(demo):
    assert {str(path.relative_to(demo)) for path in demo.rglob("*") if path.is_file()} == RESULTS
    config, metrics = settings_of(demo), json.loads((demo / "metrics.json").read_text())
    assert config["model"].keys() >= {"vocab_size", "n_layer", "n_head", "n_embd", "block_size"}
    assert config["model"]["vocab_size"] > 100
    assert (config["pretrain"]["steps"], config["pretrain"]["batch_size"]) == (250, 16)
    assert (metrics["seed"], metrics["level"]) == (0, "sequence")
    assert metrics["temperatures"] == [0.0, 0.5, 1.0]
    assert list(metrics["win_rate"]) == ["0.0", "0.5", "1.0"]
    seconds = metrics["seconds"]
    assert seconds.keys() == {"pretrain", "rollout", "lpo", "evaluate", "total"}
    total = sum(spent for phase, spent in seconds.items() if phase != "total")
    assert seconds["total"] == pytest.approx(total)
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


def test_the_steps_one_by_one_give_the_same_bytes_as_the_demo(demo, tmp_path):
    names = {
        "train": ["--rounds", "--prompts", "--samples", "--epochs", "--validation-prompts"],
        "evaluate": ["--test-prompts", "--selection-prompts", "--ood-prompts"],
    }
    flags = {"pretrain": [], "train": [], "evaluate": []}
    for word in TINY:
        if word.startswith("--"):
            step = next((step for step in names if word in names[step]), "pretrain")
        flags[step].append(word)
    for step in ("pretrain", "train", "pretrain", "evaluate"):  # the second one is done already
        assert main([step, "--run", str(tmp_path / "steps"), *flags[step]]) == 0
    assert files_of(tmp_path / "steps") == files_of(demo)


def test_a_finished_demo_started_again_keeps_its_models_and_its_numbers(run):
    before = files_of(run)
    assert main(["demo", "--out", str(run), *TINY]) == 0
    assert files_of(run) == before


def test_a_sentence_of_the_models_own_is_shown_every_tenth_and_changes_nothing(
    demo, tmp_path, capsys, monkeypatch
):
    flags, states = TINY[: TINY.index("--rounds")], set()
    for name in ("with", "without"):
        random.seed(0), torch.manual_seed(0)
        assert main(["pretrain", "--run", str(tmp_path / name), *flags]) == 0
        states.add((random.random(), torch.rand(()).item()))
        out, err = capsys.readouterr()
        shown = re.findall(r"pretraining +(\d+)%\| \S.* It answers: \S", err)
        assert shown == [str(n) for n in range(10, 101, 10)] * (name == "with")
        assert "It answers" not in out
        silent = lambda *_: lambda step: None  # noqa: E731
        monkeypatch.setattr("minilpo.run.steps.answers_while_training", silent)
    assert (tmp_path / "with" / "model.pt").read_bytes() == (demo / "model.pt").read_bytes()
    assert files_of(tmp_path / "with") == files_of(tmp_path / "without")
    assert len(states) == 1  # of Python's and PyTorch's own generators


def test_other_settings_for_a_step_make_it_anew_and_the_default_is_what_the_run_had(run):
    assert main(["train", "--run", str(run), "--beta", "0.5"]) == 0
    assert (settings_of(run)["lpo"]["beta"], settings_of(run)["lpo"]["rounds"]) == (0.5, 2)
    assert not (run / "metrics.json").exists()
    assert main(["evaluate", "--run", str(run)]) == 0


def test_the_language_model_can_be_trained_too_and_the_other_losses_run(run, capsys):
    words = ["--loss", "eq9", "--train-lm", "--lm-learning-rate", "0.001"]
    assert main(["train", "--run", str(run), *words]) == 0
    assert (run / "trained_model.pt").read_bytes() != (run / "model.pt").read_bytes()
    assert main(["evaluate", "--run", str(run)]) == 0
    assert main(["sample", "--run", str(run), BEE]) == 0
    for flags in ("eq11", "eq10 --pairs nll", "eq11 --pairs gap", "eq10 --pairs top_bottom"):
        assert main(["train", "--run", str(run), "--no-train-lm", "--loss", *flags.split()]) == 0
        assert not (run / "trained_model.pt").exists()
    capsys.readouterr()
    assert "--loss eq9" in fails(capsys, "train", "--run", run, "--train-lm", "--loss", "eq10")


def test_a_run_can_be_trained_again_by_another_rule_with_the_loss_that_goes_with_it(run, capsys):
    for rule in ("grpo", "regression", "lpo"):
        assert main(["train", "--run", str(run), "--rule", rule]) == 0
        assert settings_of(run)["lpo"]["rule"] == rule
    assert main(["evaluate", "--run", str(run)]) == 0
    capsys.readouterr()
    said = fails(capsys, "train", "--run", run, "--rule", "reinforce", "--pairs", "gap")
    assert "--pairs must be left at best_worst" in said


def test_a_whole_run_by_reinforce_at_token_level_and_back_to_lpo(tmp_path):
    run = run_of(tmp_path / "run", "--rule", "reinforce", "--level", "token")
    assert RESULTS == set(files_of(run))
    assert "REINFORCE" in (run / "report.html").read_text()
    assert settings_of(run)["lpo"]["loss"] == "eq10"
    assert main(["train", "--run", str(run), "--rule", "lpo"]) == 0
    assert settings_of(run)["lpo"]["loss"] == "eq11"


def test_token_level_runs_from_nothing_and_shows_a_temperature_for_every_word(tmp_path, capsys):
    run = run_of(tmp_path / "run", "--level", "token")
    capsys.readouterr()
    assert main(["sample", "--run", str(run), STORY]) == 0
    assert re.search(r"\[(0|0\.5|1)\]", capsys.readouterr().out)
    page = tmp_path / "page.html"
    assert main(["sample", "--run", str(run), BEE, "--html", str(page)]) == 0
    assert BEE in page.read_text()


def test_sample_prints_plain_text_with_numbers_when_piped(demo, capsys):
    for _ in range(2):  # whatever the white space, and the same each time
        assert main(["sample", "--run", str(demo), STORY.replace(" ", "  ")]) == 0
    first, second = capsys.readouterr().out.split("chosen for the whole response", 1)
    assert "\x1b" not in first and re.search(r"\w\[(0|0\.5|1)\]", first) and first in second


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["demo", "--unknown", "1"], "--unknown"),
        (["dance"], "dance"),
        ([], "COMMAND"),
        (["demo", "--tasks", "cooking"], "cooking"),
        (["demo", "--tasks", "math", "math"], "each once"),
        (["demo", "--tasks", "nowhere.py"], "nowhere.py"),
        (["demo", "--temperatures", "0", "-0.5"], "must be 0"),
        (["demo", "--temperatures", "0.5", "0.2"], "got 0.5 0.2; try 0.2 0.5"),
        (["demo", "--temperatures", "0.5", "0.5"], "must rise"),
        (["demo", "--temperatures", "warm"], "--temperatures"),
        (["demo", "--steps", "0"], "--steps must be from 1 to 10,000,000, got 0"),
        (["demo", "--steps", "many"], "--steps"),
        (["demo", "--level", "word"], "--level"),
        (["demo", "--n-embd", "30", "--n-head", "4"], "multiple"),
        (["demo", "--tasks", "story", "--test-prompts", "100000"], "--test-prompts"),
        (["train"], "--run"),
    ],
)
def test_bad_settings_are_one_line_and_leave_no_folder(
    tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_block_too_small_for_the_demonstrations_is_named(tmp_path, capsys):
    assert "--block-size must be at least" in fails(
        capsys, "demo", "--out", tmp_path / "run", *TINY, "--block-size", "20"
    )


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_missing_run_folder_is_one_line(tmp_path, capsys, command):
    said = fails(capsys, command, "--run", tmp_path / "nothing")
    assert f"minilpo demo --out {tmp_path / 'nothing'}" in said and "--run" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_head_names_the_command_that_makes_all(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["pretrain", "--run", str(run), *TINY[: TINY.index("--rounds")]]) == 0
    capsys.readouterr()
    said = fails(capsys, "sample", "--run", run, BEE)
    assert f"minilpo train --run {run}; minilpo demo makes a run with all files" in said
    with pytest.raises(ValueError, match=r"must hold head\.pt, .*minilpo demo"):
        Run.open(run).head()


@pytest.mark.parametrize(
    "name, step", [("model.pt", "pretrain"), ("head.pt", "train"), ("tokenizer.json", "pretrain")]
)
def test_a_run_that_lacks_a_file_says_which_step_makes_it(run, capsys, name, step):
    (run / name).unlink()
    said = fails(capsys, "evaluate", "--run", run)
    assert name in said and f"minilpo {step}" in said


def test_a_folder_with_another_run_or_other_things_is_left_alone(run, tmp_path, capsys):
    before = files_of(run)
    assert "--seed 0, not 1" in fails(capsys, "demo", "--out", run, *TINY, "--seed", "1")
    assert files_of(run) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "empty" in fails(capsys, "demo", "--out", tmp_path / "mine", *TINY)
    assert "empty" in fails(capsys, "demo", "--out", tmp_path / "mine" / "thesis.txt", *TINY)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "can't" in fails(capsys, "demo", "--out", tmp_path / "file" / "run", *TINY)
    if os.path.exists("/proc/version"):  # where even the superuser can't write
        assert "can't" in fails(capsys, "demo", "--out", "/proc/run", *TINY)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_standard_output_is_one_line(demo):
    command = [sys.executable, "-m", "minilpo", "sample", "--run", str(demo), BEE]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr


@pytest.mark.parametrize("n_files", [1, 12])
def test_a_full_disk_at_any_time_is_one_line_and_the_run_goes_on_later(
    demo, tmp_path, capsys, monkeypatch, n_files
):
    real, written = os.fsync, []

    def full_after_a_while(handle):
        written.append(handle)
        if len(written) > n_files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full_after_a_while)
    said = fails(capsys, "demo", "--out", tmp_path / "run", *TINY)
    assert re.search(r"run/.*: No space left", said)
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.startswith(".")]
    assert main(["demo", "--out", str(tmp_path / "run"), *TINY]) == 0
    assert files_of(tmp_path / "run") == files_of(demo)


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
    for one in copied:
        assert main(["sample", "--run", str(demo), one]) == 0


def test_a_prompt_without_words_or_longer_than_the_block_is_one_line(demo, capsys):
    assert "at least one word" in fails(capsys, "sample", "--run", demo, "  ")
    assert "112 tokens" in fails(capsys, "sample", "--run", demo, " ".join([BEE] * 40))


ECHO = """
class Echo:
    name = 'echo'
    words = ['yes', 'no', 'maybe']
    def prompt(self, rng): return 'Say ' + ' '.join(rng.choices(self.words, k=rng.randint(2, 7)))
    def demonstration(self, prompt, rng): return ' '.join(rng.choices(self.words, k=len(prompt.split())))
    def reward(self, prompt, response): return response.count('yes') / (1 + len(response.split()))
"""
WITHOUT_TASKS = [word for word in TINY if word not in ("--tasks", "instruct", "story")]


def test_a_task_from_a_users_file_is_trained_on_but_its_code_never_runs_unasked(tmp_path, capsys):
    (tmp_path / "echo.py").write_text(ECHO)
    file, folder = str(tmp_path / "echo.py"), str(tmp_path / "run")
    assert main(["demo", "--out", folder, "--tasks", file, *WITHOUT_TASKS]) == 0
    assert "echo" in capsys.readouterr().out
    assert "--tasks" in fails(capsys, "evaluate", "--run", folder)
    assert main(["evaluate", "--run", folder, "--tasks", file]) == 0


def test_every_command_explains_itself_with_its_defaults(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
    out = capsys.readouterr().out
    for default in ("(default: 3000)", "(default: runs/demo)", "(default: minilpo-lessons)"):
        assert default in re.sub(r"\s+", " ", out)


def test_without_docstrings_every_command_says_and_writes_the_same(demo, tmp_path):
    """As `python -OO` does, which takes docstrings and assertions away."""
    commands = [["sample", "--run", str(demo), BEE], *([name, "--help"] for name in COMMANDS)]
    code = f"""
from minilpo.cli import main
for words in {commands}:
    try:
        main(words)
    except SystemExit as stop:
        assert stop.code == 0
"""
    outputs = []
    for flags in ([], ["-OO"]):
        words = [sys.executable, *flags, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and "Train the temperature head by LPO." in outputs[0]
    words = [sys.executable, "-OO", "-m", "minilpo", "demo", "--out", str(tmp_path / "run"), *TINY]
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert files_of(tmp_path / "run") == files_of(demo)


def test_a_task_file_that_changes_the_folder_moves_no_run(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("echo.py").write_text(f"import os\nos.chdir({str(tmp_path / 'elsewhere')!r})\n{ECHO}")
    assert main(["demo", "--out", "run", "--tasks", "echo.py", *WITHOUT_TASKS]) == 0
    assert (tmp_path / "run" / "metrics.json").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


def interrupt(arguments: list[str], phase: str) -> None:
    """Starts a command, presses Ctrl-C once the phase has begun and waits for the farewell."""
    # A job in the background would inherit deafness.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "minilpo", *arguments],
        **{"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "preexec_fn": heed},
    )
    seen = b""
    while phase.encode() not in seen:
        seen += process.stderr.read1(64)
        assert process.poll() is None, seen.decode()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    rest = (seen + process.communicate(timeout=60)[1]).decode()
    lines = [line for line in re.split(r"[\n\r]", rest) if line.startswith("minilpo: ")]
    # A shell shows 130 for both: Python ends by the signal itself if it came while a library ran
    # code from a string.
    assert process.returncode in (130, -signal.SIGINT), rest
    assert len(lines) == 1 and "goes on from there" in lines[0] and "Traceback" not in rest, rest


@pytest.mark.slow
def test_ctrl_c_in_any_phase_ends_and_the_run_goes_on_to_the_same_bytes(tmp_path):
    longer = "--steps 300 --rounds 4 --prompts 64 --samples 8 --test-prompts 120".split()
    whole, broken = (
        ["demo", "--out", str(tmp_path / name), *TINY, *longer] for name in ("whole", "broken")
    )
    for phase in ("pretraining", "LPO", "evaluating"):
        interrupt(broken, phase)
    assert main(broken) == 0 == main(whole)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


def test_sample_without_a_prompt_shows_unseen_prompts_of_every_task_to_copy(demo, capsys):
    assert main(["sample", "--run", str(demo)]) == 0
    out, err = capsys.readouterr()
    shown = re.findall(r"^(\w+):\n((?:  .+\n)+)", out, re.MULTILINE)
    assert [name for name, _ in shown] == ["instruct", "story"]
    for name, lines in shown:
        prompts = [shlex.split(line) for line in lines.splitlines()]
        assert len(prompts) == 3 and all(len(prompt) == 1 for prompt in prompts)
        [task] = load_tasks([name])
        for [prompt] in prompts:
            assert task.knows(prompt) and split_of(prompt) == "test"
            assert main(["sample", "--run", str(demo), prompt]) == 0
    again = capsys.readouterr().out
    assert main(["sample", "--run", str(demo)]) == 0 and capsys.readouterr().out == out
    assert main(["sample", "--run", str(demo), "--seed", "1"]) == 0
    assert capsys.readouterr().out != out and again and err == ""


def test_sample_tells_the_reward_where_a_task_knows_the_prompt_and_compares_with_a_temperature(
    demo, capsys
):
    assert main(["sample", "--run", str(demo), STORY, "--temperature", "0.25"]) == 0
    out = capsys.readouterr().out
    told = re.findall(r"^reward: (\d\.\d\d) \(story\)$", out, re.MULTILINE)
    [fixed] = re.findall(r"^at a fixed temperature of 0\.25: (.*)$", out, re.MULTILINE)
    adaptive = re.sub(r"\[[^\]]*\]", "", out.splitlines()[0])
    [task] = load_tasks(["story"])
    assert told == [f"{task.reward(STORY, text):.2f}" for text in (adaptive, fixed)]
    assert main(["sample", "--run", str(demo), "The fox is in the forest."]) == 0
    assert "reward" not in capsys.readouterr().out  # no task has such a prompt
    for value in ("-0.1", "100.5", "nan", "inf"):
        said = fails(capsys, "sample", "--run", demo, STORY, f"--temperature={value}")
        assert "--temperature: must be from 0 to 100, got" in said
    for flags in (["--temperature", "0"], ["--html", "page.html"]):
        said = fails(capsys, "sample", "--run", demo, *flags)
        assert "--html and --temperature must come with a prompt to respond to, got none" in said

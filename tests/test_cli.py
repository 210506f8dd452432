"""The command line: from nothing to results, the same bytes twice, and one clear line for
everything that can go wrong.
"""

import json
import os
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

from minilpo.cli import COMMANDS, main
from minilpo.tasks import load_tasks, split_of
from tests.outside import RESULTS, TINY, fails, files_of, run_of


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "demo"
    assert main(["demo", "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture
def run(demo, tmp_path):
    """A copy of the finished run, to be spoiled."""
    return Path(shutil.copytree(demo, tmp_path / "run"))


def test_demo_writes_what_the_contract_names(demo):
    assert {str(path.relative_to(demo)) for path in demo.rglob("*") if path.is_file()} == RESULTS
    config, metrics = (
        json.loads((demo / name).read_text()) for name in ("config.json", "metrics.json")
    )
    assert (
        config["model"].keys() >= {"vocab_size", "n_layer", "n_head", "n_embd", "block_size"}
        and config["model"]["vocab_size"] > 100
    )
    assert config["pretrain"]["steps"] == 250 and config["pretrain"]["batch_size"] == 16
    assert (metrics["seed"], metrics["level"], metrics["temperatures"]) == (
        0,
        "sequence",
        [0.0, 0.5, 1.0],
    )
    assert metrics["seconds"].keys() == {"pretrain", "rollout", "lpo", "evaluate", "total"}
    assert metrics["seconds"]["total"] == pytest.approx(
        sum(s for phase, s in metrics["seconds"].items() if phase != "total")
    )
    assert metrics["tasks"].keys() == {"instruct", "story"} == metrics["ood"]["tasks"].keys()
    for task in metrics["tasks"].values():
        assert (
            task.keys() >= {"fixed", "adaptive", "oracle", "chosen_temperature", "histogram"}
            and len(task["fixed"]) == 3
        )
    mean = metrics["mean"]
    contract = {"fixed", "best_fixed", "adaptive", "oracle", "gain_over_best_fixed", "gap_closed"}
    added = {"best_per_task", "best_per_kind", "gap_closed_ci95"}
    added |= {"gain_over_best_per_task", "gain_over_best_per_kind"}
    assert mean.keys() == contract | added
    low, high = mean["gain_over_best_fixed"]["ci95"]
    assert low <= mean["gain_over_best_fixed"]["estimate"] <= high
    assert metrics["win_rate"].keys() == {"0.0", "0.5", "1.0"}


def test_the_steps_one_by_one_give_the_same_bytes_as_the_demo(demo, tmp_path):
    flags = iter(TINY)
    for_pretrain, for_train, for_evaluate = [], [], []
    for flag in flags:
        if flag.startswith("--"):
            into = (
                for_train
                if flag
                in ("--rounds", "--prompts", "--samples", "--epochs", "--validation-prompts")
                else for_pretrain
            )
            into = (
                for_evaluate
                if flag in ("--test-prompts", "--selection-prompts", "--ood-prompts")
                else into
            )
        into.append(flag)
    folder = str(tmp_path / "steps")
    assert main(["pretrain", "--run", folder, *for_pretrain]) == 0
    assert main(["train", "--run", folder, *for_train]) == 0
    assert (
        main(["pretrain", "--run", folder, *for_pretrain]) == 0
    )  # done already, whatever the settings of later steps
    assert main(["evaluate", "--run", folder, *for_evaluate]) == 0
    assert files_of(tmp_path / "steps") == files_of(demo)


def test_a_finished_demo_started_again_keeps_its_models_and_its_numbers(run):
    before = files_of(run)
    assert main(["demo", "--out", str(run), *TINY]) == 0
    assert files_of(run) == before


def test_other_settings_for_a_step_make_it_anew_and_the_default_is_what_the_run_had(run):
    assert main(["train", "--run", str(run), "--beta", "0.5"]) == 0
    config = json.loads((run / "config.json").read_text())
    assert (
        config["lpo"]["beta"] == 0.5
        and config["lpo"]["rounds"] == 2
        and not (run / "metrics.json").exists()
    )
    assert main(["evaluate", "--run", str(run)]) == 0


def test_the_language_model_can_be_trained_too_and_the_other_losses_run(run, capsys):
    assert (
        main(
            [
                "train",
                "--run",
                str(run),
                "--loss",
                "eq9",
                "--train-lm",
                "--lm-learning-rate",
                "0.001",
            ]
        )
        == 0
    )
    assert (run / "trained_model.pt").exists() and (run / "trained_model.pt").read_bytes() != (
        run / "model.pt"
    ).read_bytes()
    assert main(["evaluate", "--run", str(run)]) == 0
    assert main(["sample", "--run", str(run), "Where does the bee live?"]) == 0
    for flags in (
        ["--loss", "eq11"],
        ["--loss", "eq10", "--pairs", "nll"],
        ["--loss", "eq11", "--pairs", "gap"],
        ["--loss", "eq10", "--pairs", "top_bottom"],
    ):
        assert main(["train", "--run", str(run), "--no-train-lm", *flags]) == 0
        assert not (run / "trained_model.pt").exists()
    capsys.readouterr()
    assert "--loss eq9" in fails(capsys, "train", "--run", run, "--train-lm", "--loss", "eq10")


def test_a_run_can_be_trained_again_by_another_rule_with_the_loss_that_goes_with_it(run, capsys):
    for rule in ("grpo", "regression", "lpo"):
        assert main(["train", "--run", str(run), "--rule", rule]) == 0
        assert json.loads((run / "config.json").read_text())["lpo"]["rule"] == rule
    assert main(["evaluate", "--run", str(run)]) == 0
    capsys.readouterr()
    said = fails(capsys, "train", "--run", run, "--rule", "reinforce", "--pairs", "gap")
    assert "--pairs must be left at best_worst" in said


def test_a_whole_run_by_reinforce_at_token_level_and_back_to_lpo(tmp_path):
    run = run_of(tmp_path / "run", "--rule", "reinforce", "--level", "token")
    assert RESULTS - {"timings.json"} == set(files_of(run))
    assert "REINFORCE" in (run / "report.html").read_text()
    assert json.loads((run / "config.json").read_text())["lpo"]["loss"] == "eq10"
    assert main(["train", "--run", str(run), "--rule", "lpo"]) == 0
    assert json.loads((run / "config.json").read_text())["lpo"]["loss"] == "eq11"


def test_token_level_runs_from_nothing_and_shows_a_temperature_for_every_word(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "run"), "--level", "token", *TINY]) == 0
    capsys.readouterr()
    assert (
        main(
            [
                "sample",
                "--run",
                str(tmp_path / "run"),
                "Tell me a story of three sentences about a fox in the forest.",
            ]
        )
        == 0
    )
    assert re.search(r"\[(0|0\.5|1)\]", capsys.readouterr().out)
    page = tmp_path / "page.html"
    assert (
        main(
            [
                "sample",
                "--run",
                str(tmp_path / "run"),
                "Where does the bee live?",
                "--html",
                str(page),
            ]
        )
        == 0
    )
    assert "Where does the bee live?" in page.read_text()


def test_sample_prints_plain_text_with_numbers_when_piped(demo, capsys):
    prompt = "Tell me a story of three sentences about a fox in the forest."
    for _ in range(2):  # whatever the white space, and the same each time
        assert main(["sample", "--run", str(demo), prompt.replace(" ", "  ")]) == 0
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
    assert "minilpo pretrain --run" in fails(capsys, command, "--run", tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, step", [("model.pt", "pretrain"), ("head.pt", "train"), ("tokenizer.json", "pretrain")]
)
def test_a_run_that_lacks_a_file_says_which_step_makes_it(run, capsys, name, step):
    (run / name).unlink()
    said = fails(capsys, "evaluate", "--run", run)
    assert name in said and f"minilpo {step}" in said


@pytest.mark.parametrize(
    "name", ["model.pt", "head.pt", "tokenizer.json", "config.json", "lpo_log.json"]
)
def test_a_file_cut_short_is_named(run, capsys, name):
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: len(data) // 2])
    assert name in fails(capsys, "evaluate", "--run", run)


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
    with open("/dev/full", "w") as full:
        command = [
            sys.executable,
            "-m",
            "minilpo",
            "sample",
            "--run",
            str(demo),
            "Where does the bee live?",
        ]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (
        done.returncode == 2
        and len(done.stderr.splitlines()) == 1
        and "No space left" in done.stderr
    )


@pytest.mark.parametrize("n_files", [1, 12])
def test_a_full_disk_at_any_time_is_one_line_and_the_run_goes_on_later(
    demo, tmp_path, capsys, monkeypatch, n_files
):
    import errno

    real, written = os.fsync, []

    def full_after_a_while(handle):
        written.append(handle)
        if len(written) > n_files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full_after_a_while)
    assert re.search(
        r"run/.*: No space left", fails(capsys, "demo", "--out", tmp_path / "run", *TINY)
    )
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.startswith(".")]
    assert main(["demo", "--out", str(tmp_path / "run"), *TINY]) == 0
    assert files_of(tmp_path / "run") == files_of(demo)


@pytest.mark.parametrize(
    "prompt, said",
    [
        ("Tell me about quantum physics.", "'quantum'"),
        ("Tell me <sep>", "'<'"),
        ("  ", "at least one word"),
    ],
)
def test_a_prompt_with_unknown_words_or_none_is_one_line(demo, capsys, prompt, said):
    assert re.search(said, fails(capsys, "sample", "--run", demo, prompt))


def test_a_prompt_longer_than_the_block_says_both_lengths(demo, capsys):
    assert "112 tokens" in fails(
        capsys, "sample", "--run", demo, " ".join(["Where does the bee live?"] * 40)
    )


def test_a_task_from_a_users_file_is_trained_on_but_its_code_never_runs_unasked(tmp_path, capsys):
    (tmp_path / "echo.py").write_text(
        "class Echo:\n"
        "    name = 'echo'\n"
        "    words = ['yes', 'no', 'maybe']\n"
        "    def prompt(self, rng): return 'Say ' + ' '.join(rng.choices(self.words, k=rng.randint(2, 7)))\n"
        "    def demonstration(self, prompt, rng): return ' '.join(rng.choices(self.words, k=len(prompt.split())))\n"
        "    def reward(self, prompt, response): return response.count('yes') / (1 + len(response.split()))\n"
    )
    tiny = [argument for argument in TINY if argument not in ("--tasks", "instruct", "story")]
    file, folder = str(tmp_path / "echo.py"), str(tmp_path / "run")
    assert main(["demo", "--out", folder, "--tasks", file, *tiny]) == 0
    assert "echo" in capsys.readouterr().out
    assert "--tasks" in fails(capsys, "evaluate", "--run", folder)
    assert main(["evaluate", "--run", folder, "--tasks", file]) == 0


def test_every_command_explains_itself_with_its_defaults(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
    assert "(default: 3000)" in capsys.readouterr().out


def interrupt(arguments: list[str], phase: str) -> float:
    """Starts a command, presses Ctrl-C once the phase has begun and returns how many seconds the
    farewell took.
    """
    command = [sys.executable, "-m", "minilpo", *arguments]
    heed = partial(
        signal.signal, signal.SIGINT, signal.default_int_handler
    )  # a job in the background would inherit deafness
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, preexec_fn=heed
    )
    seen = b""
    while phase.encode() not in seen:
        seen += process.stderr.read1(64)
        assert process.poll() is None, seen.decode()
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest = (seen + process.communicate(timeout=60)[1]).decode()
    delay = time.monotonic() - started
    lines = [line for line in re.split(r"[\n\r]", rest) if line and "%|" not in line]
    # A shell shows 130 for both: Python ends by the signal itself if it came while a library ran
    # code from a string.
    assert (
        process.returncode in (130, -signal.SIGINT)
        and len(lines) == 1
        and "goes on from there" in lines[0]
    ), rest
    return delay


@pytest.mark.slow
def test_ctrl_c_in_any_phase_ends_at_once_and_the_run_goes_on_to_the_same_bytes(tmp_path):
    longer = "--steps 300 --rounds 4 --prompts 64 --samples 8 --test-prompts 120".split()
    whole, broken = (
        ["demo", "--out", str(tmp_path / name), *TINY, *longer] for name in ("whole", "broken")
    )
    delays = [interrupt(broken, phase) for phase in ("pretraining", "LPO", "evaluating")]
    assert (
        max(delays) < 45
    )  # a second on an idle machine; this says no more than that it doesn't go on working
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
    prompt = "Tell me a story of three sentences about a fox in the forest."
    assert main(["sample", "--run", str(demo), prompt, "--temperature", "0.25"]) == 0
    out = capsys.readouterr().out
    told = re.findall(r"^reward: (\d\.\d\d) \(story\)$", out, re.MULTILINE)
    [fixed] = re.findall(r"^at a fixed temperature of 0\.25: (.*)$", out, re.MULTILINE)
    adaptive = re.sub(r"\[[^\]]*\]", "", out.splitlines()[0])
    [task] = load_tasks(["story"])
    assert told == [f"{task.reward(prompt, text):.2f}" for text in (adaptive, fixed)]
    assert main(["sample", "--run", str(demo), "The fox is in the forest."]) == 0
    assert "reward" not in capsys.readouterr().out  # no task has such a prompt
    for value in ("-0.1", "100.5", "nan", "inf"):
        said = fails(capsys, "sample", "--run", demo, prompt, f"--temperature={value}")
        assert "--temperature: must be from 0 to 100, got" in said
    for flags in (["--temperature", "0"], ["--html", "page.html"]):
        said = fails(capsys, "sample", "--run", demo, *flags)
        assert "--html and --temperature must come with a prompt to respond to, got none" in said
    said = fails(capsys, "sample", "--run", demo, "Tell me a stroy.")
    assert "got 'stroy'; near it are 'story'" in said

"""Other people's machines: closed streams, own settings for figures, numbers without sense, more or
fewer threads.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minilpo.cli import main
from tests.outside import BAR, TINY, fails, files_of, run_of

SETTINGS = "--tasks coin_flip hidden_wish --steps 60 --demonstrations 1500 --rounds 2 --prompts 16 --n-hidden 4".split()
PRETRAIN = "--tasks coin_flip hidden_wish --steps 60 --demonstrations 1500 --batch-size 16 --learning-rate 0.006".split()
PRETRAIN += "--warmup-steps 5 --n-layer 1 --n-embd 32 --n-head 2 --temperatures 0 0.5 1".split()
PROMPT = "Mia flips a coin at noon in the cave. Heads or tails?"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("whole") / "run", *SETTINGS)


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def shell(command: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs a line in a shell in which `minilpo` is this one."""
    line = f'minilpo() {{ "{sys.executable}" -m minilpo "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=120,
    )


needs_shell = pytest.mark.skipif(
    not shutil.which("bash"), reason="needs a shell that can close streams"
)


@needs_shell
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_nothing_in_the_folder_and_gives_no_traceback(run, whole, closed):
    (run / "metrics.json").unlink()
    done = shell(f"minilpo evaluate --run '{run}' {closed}")
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr
    assert files_of(run) == files_of(whole)


@needs_shell
def test_a_reader_that_goes_away_is_one_line(run):
    done = shell(f"minilpo evaluate --run '{run}' | true; exit ${{PIPESTATUS[0]}}")
    said = [
        line
        for line in done.stderr.replace("\r", "\n").splitlines()
        if line.strip() and not BAR.search(line)
    ]
    assert done.returncode in (0, 2) and len(said) == (done.returncode == 2), done
    assert not said or "standard output was closed" in said[0]


def test_own_settings_for_figures_change_nothing(run, whole, tmp_path):
    (tmp_path / "matplotlibrc").write_text(
        "lines.linewidth: 9\nfigure.dpi: 33\naxes.facecolor: red\nnonsense here\n"
    )
    before = files_of(whole)
    for variables in (
        {"MPLBACKEND": "no_such_backend"},
        {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")},
        {"MPLCONFIGDIR": str(tmp_path / "matplotlibrc" / "no_folder")},
    ):
        command = [sys.executable, "-m", "minilpo", "evaluate", "--run", str(run)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **variables}, cwd=tmp_path
        )
        assert done.returncode == 0 and "cache" not in done.stderr, done.stderr
        assert files_of(run) == before


def test_where_no_threads_can_be_started_one_line_says_so():
    code = 'import threading\ndef start(self): raise RuntimeError("can\'t start new thread")\n'
    code += "threading.Thread.start = start\nfrom minilpo.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "ulimit -u" in done.stderr


# Numbers


def flags_with_numbers() -> list[str]:
    """Every flag of `demo` that takes a number."""
    from minilpo.cli import make_parser

    parser = next(iter(make_parser()._subparsers._group_actions)).choices["demo"]
    return [action.option_strings[0] for action in parser._actions if action.type in (int, float)]


@pytest.mark.parametrize("flag", flags_with_numbers())
def test_every_number_has_limits_and_the_message_says_them(tmp_path, monkeypatch, capsys, flag):
    monkeypatch.chdir(tmp_path)
    for value in ("inf", "nan", "-inf", "1e39", "-1e39", str(10**12 * 10**12), "-1", "0x10", ""):
        if (flag, value) != ("--temperatures", ""):
            said = fails(capsys, "demo", flag, value)
            assert flag in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--temperatures 0 1e-7", "from 1e-06 to 100"),
        ("--temperatures 0 0.0001", "must rise by 0.001 or more"),
        ("--temperatures 0.5 0.5000001", "must rise by 0.001 or more"),
        ("--temperatures 0 1e39", "from 1e-06 to 100"),
        ("--temperatures 0 inf", "from 1e-06 to 100"),
        ("--temperatures 0 nan", "must be 0"),
        ("--n-embd 4096 --n-layer 48", "100,000,000 parameters"),
        ("--n-embd 1000000000", "--n-embd must be from 1 to 4,096"),
        ("--samples 1000000000", "--samples must be from 2 to 256"),
        ("--resamples 1000000000000", "--resamples must be from 100"),
        ("--beta inf", "--beta must be from 1e-09 to 1,000, got inf"),
        ("--head-learning-rate 1e30", "--head-learning-rate must be from"),
    ],
)
def test_numbers_without_sense_are_refused_before_any_work(tmp_path, capsys, flags, said):
    assert said in fails(capsys, "demo", "--out", tmp_path / "run", *flags.split())
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_one_line(run, capsys, monkeypatch):
    def too_much(*_, **__):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr("minilpo.run.steps.evaluate", too_much)
    assert "memory" in fails(capsys, "evaluate", "--run", run)
    monkeypatch.setattr(
        "minilpo.run.steps.evaluate", lambda *_: 1 / 0
    )  # what is our own fault is not hidden
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", "--run", str(run)])


def test_a_training_that_leaves_the_finite_numbers_ends_and_keeps_what_was_there(
    run, capsys, monkeypatch
):
    before = files_of(run)
    broken = lambda chosen, rejected, beta: chosen / 0  # noqa: E731
    monkeypatch.setattr("minilpo.losses.preference_loss", broken)
    said = fails(capsys, "train", "--run", run, "--head-learning-rate", "10", "--beta", "1000")
    assert "--head-learning-rate (now 10)" in said and "--beta (now 1000)" in said
    assert files_of(run) == before
    monkeypatch.setattr(
        "minilpo.lm.pretraining.language_model_loss", lambda model, *_: model.norm.weight.sum() / 0
    )
    assert "--learning-rate" in fails(capsys, "pretrain", "--run", run / "other", *PRETRAIN)


# Advice is followed


def test_the_block_size_that_a_message_asks_for_is_enough(tmp_path, capsys):
    arguments = ["demo", "--out", tmp_path / "run", *TINY, *SETTINGS, "--steps", "3"]
    said = fails(capsys, *arguments, "--block-size", "9")
    assert not (tmp_path / "run").exists()
    for _ in range(2):  # first the demonstrations, then perhaps a longer prompt
        size = said.split("--block-size must be at least ")[1].split(",")[0]
        try:
            said = fails(capsys, *arguments, "--block-size", size)
        except AssertionError:
            break
    assert (tmp_path / "run" / "model.pt").exists()


def test_the_number_of_prompts_that_a_message_asks_for_is_enough(run, capsys):
    said = fails(capsys, "evaluate", "--run", run, "--test-prompts", "90000")
    offered = said.split("got ")[1].split(";")[0]
    assert main(["evaluate", "--run", str(run), "--test-prompts", str(min(int(offered), 40))]) == 0


OWN_TASK = """
class Echo:
    name = "echo"
    words = ["yes", "no", "maybe", "so"]
    def prompt(self, rng):
        return "Say " + " ".join(rng.choices(self.words, k=rng.randint(2, 7)))
    def demonstration(self, prompt, rng):
        return " ".join(rng.choices(self.words, k=3))
    def reward(self, prompt, response):
        return len(set(response.split())) / (1 + len(response.split()))
"""


def test_a_task_file_may_move_but_not_change(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("echo.py").write_text(OWN_TASK)
    settings = ["--out", "run", *TINY, *SETTINGS, "--tasks", "coin_flip"]
    assert main(["demo", *settings, "echo.py"]) == 0
    before = files_of(Path("run"))
    capsys.readouterr()
    said = fails(capsys, "evaluate", "--run", "run")
    advised = said.split("add ")[1].split()
    assert main(["evaluate", "--run", "run", *advised]) == 0
    Path("elsewhere").mkdir()
    Path("echo.py").rename("elsewhere/mine.py")
    for command in ("pretrain", "train", "evaluate"):
        assert main([command, "--run", "run", "--tasks", "coin_flip", "elsewhere/mine.py"]) == 0
    assert main(["demo", *settings, "elsewhere/mine.py"]) == 0
    assert files_of(Path("run")) == before
    Path("echo.py").write_text(OWN_TASK + "# changed\n")
    for command in ("pretrain", "train", "evaluate"):
        capsys.readouterr()
        assert "has changed since" in fails(
            capsys, command, "--run", "run", "--tasks", "coin_flip", "echo.py"
        )
    fails(capsys, "demo", *settings, "echo.py")
    assert files_of(Path("run")) == before


# Threads


@pytest.fixture
def threads(monkeypatch):
    """The numbers of threads that were set, on a machine where two would be best, without a wish of
    the user.
    """
    used = []
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("torch.set_num_threads", used.append)
    monkeypatch.setattr("minilpo.machine.threads.fastest", lambda: (2, "2 threads"))
    return used


def stored(run: Path) -> int:
    return json.loads((run / "config.json").read_text())["threads"]


def test_the_number_of_threads_is_measured_once_said_kept_and_overruled(tmp_path, capsys, threads):
    run = tmp_path / "run"
    assert main(["pretrain", "--run", str(run), *PRETRAIN]) == 0
    assert threads == [2] and stored(run) == 2
    said = capsys.readouterr().err
    assert said.count("2 threads") == 1 and "--threads" in said
    few = "--rounds 1 --prompts 16 --validation-prompts 2".split()
    assert main(["train", "--run", str(run), *few]) == 0
    assert threads == [2, 2] and "threads" not in capsys.readouterr().err  # it goes on as it began
    few = "--test-prompts 4 --selection-prompts 4 --threads 1".split()
    assert main(["evaluate", "--run", str(run), *few]) == 0
    assert threads == [2, 2, 1] and stored(run) == 1
    assert main(["sample", "--run", str(run), PROMPT]) == 0 and threads[-1] == 1


def test_a_users_own_number_of_threads_isnt_measured(tmp_path, capsys, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    assert main(["pretrain", "--run", str(tmp_path / "run"), *PRETRAIN]) == 0
    assert stored(tmp_path / "run") == 3 and "computing" not in capsys.readouterr().err


def test_the_contract_keys_of_config_and_metrics_are_all_there(whole):
    names = "config.json", "metrics.json"
    config, metrics = (json.loads((whole / name).read_text()) for name in names)
    for written, keys in (
        (config, "seed level tasks temperatures model pretrain lpo evaluation threads"),
        (metrics, "seed level temperatures seconds tasks mean win_rate"),
    ):
        assert written.keys() >= {*keys.split()}

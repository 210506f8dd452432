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

from minilpo.cli import main, make_parser
from tests.outside import BAR, TINY, fails, files_of, run_of

TASKS = "--tasks coin_flip hidden_wish --demonstrations 1500".split()
SETTINGS = [*TASKS, *"--steps 60 --rounds 2 --prompts 16 --n-hidden 4".split()]
PRETRAIN = [*TASKS, *"--steps 9 --batch-size 16 --n-layer 1 --n-embd 32 --n-head 2".split()]
PROMPT = "Mia flips a coin at noon in the cave. Heads or tails?"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("whole") / "run", *SETTINGS)


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def shell(command: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs a line in a shell in which `minilpo` is this one."""
    words = ["bash", "-c", f'minilpo() {{ "{sys.executable}" -m minilpo "$@"; }}; {command}']
    options = {"capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(words, env={**os.environ, **variables}, **options)


needs_shell = pytest.mark.skipif(
    not shutil.which("bash"), reason="needs a shell that can close streams"
)


@needs_shell
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_and_own_settings_for_figures_change_nothing_in_the_folder(
    run, whole, tmp_path, closed
):
    (run / "metrics.json").unlink()
    own = tmp_path / "matplotlibrc"
    own.write_text("lines.linewidth: 9\nfigure.dpi: 33\naxes.facecolor: red\nnonsense here\n")
    variables = {"MPLBACKEND": "no_such_backend", "MATPLOTLIBRC": str(own)}
    variables["MPLCONFIGDIR"] = str(own / "no_folder")
    done = shell(f"minilpo evaluate --run '{run}' {closed}", **variables)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr
    assert "cache" not in done.stderr and files_of(run) == files_of(whole)


@needs_shell
def test_a_reader_that_goes_away_is_one_line(run):
    done = shell(f"minilpo evaluate --run '{run}' | true; exit ${{PIPESTATUS[0]}}")
    lines = done.stderr.replace("\r", "\n").splitlines()
    said = [line for line in lines if line.strip() and not BAR.search(line)]
    assert done.returncode in (0, 2) and len(said) == (done.returncode == 2), done
    assert not said or "standard output was closed" in said[0]


def test_where_no_threads_can_be_started_one_line_says_so():
    code = 'import threading\ndef start(self): raise RuntimeError("can\'t start new thread")\n'
    code += "threading.Thread.start = start\nfrom minilpo.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "ulimit -u" in done.stderr


# Numbers


def test_every_number_has_limits_and_the_message_says_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parser = next(iter(make_parser()._subparsers._group_actions)).choices["demo"]
    flags = [action.option_strings[0] for action in parser._actions if action.type in (int, float)]
    assert len(flags) > 20
    for flag in flags:
        for value in ("inf", "nan", "1e39", "-1e39", str(10**24), "-1", "0x10", ""):
            if (flag, value) != ("--temperatures", ""):
                assert flag in fails(capsys, "demo", flag, value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--temperatures 0 1e-7", "from 1e-06 to 100"),
        ("--temperatures 0 0.0001", "must rise by 0.001 or more"),
        ("--temperatures 0.5 0.5000001", "must rise by 0.001 or more"),
        ("--temperatures 0 inf", "from 1e-06 to 100"),
        ("--temperatures 0 nan", "must be 0"),
        ("--n-embd 4096 --n-layer 48", "100,000,000 parameters"),
        ("--n-embd 1000000000", "--n-embd must be from 1 to 4,096"),
        ("--beta inf", "--beta must be from 1e-09 to 1,000, got inf"),
    ],
)
def test_numbers_without_sense_are_refused_before_any_work(tmp_path, capsys, flags, said):
    assert said in fails(capsys, "demo", "--out", tmp_path / "run", *flags.split())
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_one_line_and_a_fault_of_our_own_is_not_hidden(
    run, capsys, monkeypatch
):
    def too_much(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory")

    monkeypatch.setattr("minilpo.run.steps.evaluate", too_much)
    assert "memory" in fails(capsys, "evaluate", "--run", run)
    monkeypatch.setattr("minilpo.run.steps.evaluate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", "--run", str(run)])


def test_a_training_that_leaves_the_finite_numbers_ends_and_keeps_what_was_there(
    run, capsys, monkeypatch
):
    before = files_of(run)
    monkeypatch.setattr("minilpo.losses.preference_loss", lambda chosen, *_: chosen / 0)
    said = fails(capsys, "train", "--run", run, "--head-learning-rate", "10", "--beta", "1000")
    assert "--head-learning-rate (now 10)" in said and "--beta (now 1000)" in said
    assert files_of(run) == before
    infinite = lambda model, *_: model.norm.weight.sum() / 0  # noqa: E731
    monkeypatch.setattr("minilpo.lm.pretraining.language_model_loss", infinite)
    assert "--learning-rate" in fails(capsys, "pretrain", "--run", run / "other", *PRETRAIN)


# Advice is followed


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are quick to draw."""
    monkeypatch.setattr("minilpo.show.plots.png", lambda fig: b"a figure")
    monkeypatch.setattr("minilpo.show.plots.panels", lambda fig, whole: [whole] * len(fig.axes))


def test_the_block_size_that_a_message_asks_for_is_enough(tmp_path, capsys, undrawn):
    arguments = ["demo", "--out", str(tmp_path / "run"), *TINY, *SETTINGS, "--steps", "3"]
    size = 9
    for _ in range(2):  # first the demonstrations, then perhaps a longer prompt
        said = fails(capsys, *arguments, "--block-size", size)
        assert not (tmp_path / "run").exists()
        size = said.split("--block-size must be at least ")[1].split(",")[0]
        if main([*arguments, "--block-size", size]) == 0:
            break
        capsys.readouterr()
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


def test_a_task_file_may_move_but_not_change(tmp_path, capsys, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    Path("echo.py").write_text(OWN_TASK)
    demo = ["demo", "--out", "run", *TINY, *SETTINGS, "--tasks", "coin_flip"]
    assert main([*demo, "echo.py"]) == 0
    before = files_of(Path("run"))
    capsys.readouterr()
    advised = fails(capsys, "evaluate", "--run", "run").split("add ")[1].split()
    assert main(["evaluate", "--run", "run", *advised]) == 0
    Path("elsewhere").mkdir()
    Path("echo.py").rename("elsewhere/mine.py")
    for command in ("pretrain", "train"):  # there is nothing left to do
        assert main([command, "--run", "run", "--tasks", "coin_flip", "elsewhere/mine.py"]) == 0
    assert main([*demo, "elsewhere/mine.py"]) == 0
    Path("echo.py").write_text(OWN_TASK + "# changed\n")
    for command in ("pretrain", "train", "evaluate"):
        capsys.readouterr()
        said = fails(capsys, command, "--run", "run", "--tasks", "coin_flip", "echo.py")
        assert "has changed since" in said
    fails(capsys, *demo, "echo.py")
    assert files_of(Path("run")) == before


# Threads


@pytest.fixture
def threads(monkeypatch):
    """The numbers of threads that were set, where two are best and the user has no wish."""
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
    few = "--rounds 1 --prompts 16 --samples 4 --validation-prompts 2".split()
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
    keys = "seed level tasks temperatures model pretrain lpo evaluation threads"
    assert config.keys() >= {*keys.split()}
    assert metrics.keys() >= {*"seed level temperatures seconds tasks mean win_rate".split()}

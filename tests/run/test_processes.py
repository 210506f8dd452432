"""Several processes do what one does: the same pairs and, up to rounding, the same weights.

The real ones are started as a user starts them, by torchrun, at a size of seconds.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from minilpo.machine import processes
from minilpo.machine.files import load_tensors

TINY = "--tasks coin_flip hidden_wish --n-layer 1 --n-embd 32 --n-head 2 --steps 120 --demonstrations 900"
TINY += " --batch-size 9 --block-size 64"
LPO = "--rounds 2 --prompts 10 --samples 4 --epochs 2 --validation-prompts 3"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def command(n, words):
    """How n processes are started; one without torchrun."""
    if n == 1:
        return [sys.executable, "-m", "minilpo", *words.split()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc-per-node", str(n), "-m", "--", "minilpo", *words.split()]


def run(n, words):
    """Runs a command to its end."""
    options = {"capture_output": True, "text": True, "env": ENVIRONMENT, "timeout": 300}
    return subprocess.run(command(n, words), **options)


def said(text):
    """What minilpo said, without torchrun's own words."""
    return [line for line in re.split(r"[\n\r]", text) if line.startswith("minilpo:")]


# In one process that takes itself for one of several


class Several:
    """Stands for `rank` of `size` processes."""

    def __init__(self, monkeypatch, rank, size):
        monkeypatch.setattr(processes, "rank", lambda: rank)
        monkeypatch.setattr(processes, "size", lambda: size)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 12])
def test_shares_are_everything_once_and_together_in_order_again(monkeypatch, size, n):
    whole, shares = list(range(n)), []
    for rank in range(size):
        Several(monkeypatch, rank, size)
        shares.append(list(processes.share(whole)))
        assert abs(len(shares[-1]) - n / size) < 1
    monkeypatch.setattr(processes, "gathered", lambda part: shares)
    assert processes.together(shares[0]) == whole


def test_gradients_are_added_and_a_process_without_a_part_of_the_batch_adds_none(monkeypatch):
    model = nn.Linear(2, 3)
    Several(monkeypatch, 0, 2)
    other = torch.arange(9.0)
    monkeypatch.setattr(processes, "add_up", lambda values: values.add_(other))
    processes.add_gradients(model)  # has no gradient of its own
    assert torch.equal(model.weight.grad, other[:6].view(3, 2))
    assert torch.equal(model.bias.grad, other[6:])
    processes.add_gradients(model)
    assert torch.equal(model.weight.grad, 2 * other[:6].view(3, 2))


def test_the_others_work_in_a_copy_of_their_own_whatever_the_folder_is_called(
    tmp_path, monkeypatch
):
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "file").write_text("content")
    monkeypatch.chdir(tmp_path / "run" / "deep")
    Several(monkeypatch, 1, 2)
    monkeypatch.setattr(processes.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(processes.dist, "destroy_process_group", lambda: None)
    content = processes._content(Path(".."))
    monkeypatch.setattr(processes, "gathered", lambda part: [content, part])
    with processes.joined(Path("..")) as own:
        assert own.resolve().parent.name.startswith("minilpo-") and own.name == "run"
        assert (own / "file").read_text() == "content"
    assert not own.exists() and (tmp_path / "run" / "file").exists()


def test_alone_nothing_is_changed_copied_or_asked():
    model, whole = nn.Linear(2, 2), [1, 2, 3]
    processes.add_gradients(model)
    assert model.weight.grad is None and processes.size() == 1 and processes.rank() == 0
    assert processes.share(whole) == whole == processes.together(whole)
    assert processes.gathered("a") == ["a"]
    values = torch.ones(2)
    assert processes.add_up(values) is values and values.tolist() == [1, 1]


# Real ones


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that one process has made, and a copy of its language model without a head."""
    path = tmp_path_factory.mktemp("alone")
    for words in (f"pretrain --run {path / 'run'} {TINY}", f"train --run {path / 'run'} {LPO}"):
        ended = run(1, words)
        assert ended.returncode == 0, ended.stderr
        if not (path / "without_head").exists():
            shutil.copytree(path / "run", path / "without_head")
    return path


def log_of(path, name):
    return json.loads((path / name).read_text())["log"]


@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_pretraining_is_the_same_up_to_rounding_whoever_computes(alone, tmp_path, n):
    ended = run(n, f"pretrain --run {tmp_path / 'run'} {TINY}")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("wrote") == 1  # one of them speaks, and writes
    ours, others = (log_of(p / "run", "pretrain_log.json") for p in (alone, tmp_path))
    for own, other in zip(ours, others, strict=True):
        assert own == pytest.approx(other, rel=1e-4)
    # (The bias of the keys has no gradient but rounding, which Adam makes as large as any other.)
    ours, others = (load_tensors(p / "run" / "model.pt") for p in (alone, tmp_path))
    for key in ours:
        if not key.endswith("qkv.bias"):
            torch.testing.assert_close(ours[key], others[key], atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_lpo_has_the_same_pairs_and_makes_the_same_head_whoever_writes(alone, tmp_path, n):
    path = tmp_path / "run"
    shutil.copytree(alone / "without_head", path)
    ended = run(n, f"train --run {path} {LPO}")
    assert ended.returncode == 0, ended.stderr
    assert {file.name for file in path.iterdir()} == {f.name for f in (alone / "run").iterdir()}
    ours, others = load_tensors(alone / "run" / "head.pt"), load_tensors(path / "head.pt")
    for key in ours:
        torch.testing.assert_close(ours[key], others[key], atol=2e-4, rtol=1e-3)
    ours, others = log_of(alone / "run", "lpo_log.json"), log_of(path, "lpo_log.json")
    for own, other in zip(ours, others, strict=True):
        for key in ("pairs", "dropped_prompts", "chosen_share", "rejected_share"):
            assert own[key] == other[key]
        for key in ("sampled_reward", "validation_reward"):
            assert own[key] == pytest.approx(other[key])


def test_bad_input_is_said_once_and_a_command_that_is_not_shared_is_refused(alone):
    ended = run(2, f"pretrain --run {alone / 'run'} --steps 7")
    assert ended.returncode and len(said(ended.stderr)) == 1
    assert "holds a run with other settings" in said(ended.stderr)[0]
    ended = run(2, f"sample --run {alone / 'run'}")
    assert ended.returncode and len(said(ended.stderr)) == 1
    assert "torchrun must start one of demo, pretrain" in said(ended.stderr)[0]


@pytest.mark.parametrize(("rank", "size", "speaks"), [(0, 2, True), (1, 2, False), (1, 1, True)])
def test_told_to_end_while_it_still_imports_only_the_first_one_speaks(rank, size, speaks):
    """The last moment can't be hit from outside: the others' import takes as long as it takes."""
    code = "import minilpo.__main__ as m; m._leave(15, None)"
    options = {"capture_output": True, "text": True}
    options["env"] = {**ENVIRONMENT, "RANK": str(rank), "WORLD_SIZE": str(size)}
    ended = subprocess.run([sys.executable, "-c", code], **options)
    assert (ended.returncode, ended.stderr) == (143, "minilpo: interrupted\n" * speaks)


@pytest.mark.slow
def test_one_that_dies_ends_all_with_one_line_and_the_work_is_kept(tmp_path):
    path = tmp_path / "run"
    words = f"pretrain --run {path} {TINY}".replace("--steps 120", "--steps 100000")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(command(2, words), env=ENVIRONMENT, **options)
    state = path / "pretrain_state.pt"
    deadline = time.monotonic() + 200
    while not state.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    own = [int(pid) for pid in children_of(started.pid)]
    assert len(own) == 2
    os.kill(max(own), signal.SIGKILL)
    _, errors = started.communicate(timeout=120)
    assert started.returncode and len(said(errors)) == 1, errors
    assert (
        "one of them has ended" in said(errors)[0] or "keeps what was finished" in said(errors)[0]
    )
    assert not [pid for pid in own if os.path.exists(f"/proc/{pid}")]
    assert load_tensors(state)["step"] >= 100


def children_of(pid):
    """The processes that one has started."""
    return open(f"/proc/{pid}/task/{pid}/children").read().split()

"""Several processes do what one does: the same pairs and, up to rounding, the same weights.

Most are forked here and reach each other as torchrun's do. Real ones are started as a user would.
"""

import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from minilpo import cli
from minilpo.decoding import SampledHead, respond
from minilpo.lm.pretraining import add_gradients, collate
from minilpo.run import processes
from minilpo.tasks import Prompt
from tests.conftest import CHOICES, seeded

TINY = "--tasks coin_flip hidden_wish --n-layer 1 --n-embd 32 --n-head 2 --demonstrations 900"
TINY += " --batch-size 9 --block-size 64 --threads 1 --steps"
LPO = "--rounds 2 --prompts 10 --samples 4 --epochs 2 --validation-prompts 3 --threads 1"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")


@pytest.fixture
def together(tmp_path):
    """Forks n processes; returns what each printed, and what `act` returned in each of them."""

    def together(n, act):
        with socket.socket() as unused, socket.socket() as next_one:
            unused.bind(("127.0.0.1", 0)), next_one.bind(("127.0.0.1", 0))
            ports = (str(each.getsockname()[1]) for each in (unused, next_one))
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": next(ports), "NEXT": next(ports)}
        files = [tmp_path / f"process-{rank}" for rank in range(n)]
        children = [start(act, file, where, rank, n) for rank, file in enumerate(files)]
        for child in children:
            os.waitpid(child, 0)
        results = [pickle.loads(f.read_bytes()) if f.exists() else None for f in files]
        return [f.with_suffix(".txt").read_text() for f in files], results

    return together


def start(act, file, where, rank, n):
    if child := os.fork():
        return child
    try:
        os.environ.update(where, RANK=str(rank), WORLD_SIZE=str(n))
        cli.RANK, cli.TOGETHER = rank, True
        sys.stdout = sys.stderr = file.with_suffix(".txt").open("w", buffering=1)
        file.write_bytes(pickle.dumps(act()))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def said(text):
    """What minilpo said, without bars and without torchrun's own words."""
    return [line for line in re.split(r"[\n\r]", text) if line.startswith("minilpo:")]


PROMPTS = [f"Mia has {n} apples. How many apples are left?" for n in (7, 3, 12, 3, 5)]  # 3 twice


@pytest.mark.parametrize("n", [2, 6])
def test_responses_shared_among_processes_are_those_that_one_process_writes(
    together, tmp_path, lm, tasks, head, n
):
    """In order, whoever asks. Of 6 processes two have no prompt; all draw on alike."""
    asked = lm, [Prompt(text, tasks[0]) for text in PROMPTS], SampledHead(head, CHOICES)

    def write(respond):
        told, generator = [], seeded(0)
        options = {"n_samples": 2, "max_new_tokens": 5, "progress": told.append}
        rollout, rewards = respond(*asked, generator, **options)
        ids = rollout.token_ids, rollout.decisions.choice_ids, rewards, generator.get_state()
        return sum(told), rollout.responses, [tensor.tolist() for tensor in ids]

    def act():
        with processes.joined(tmp_path / "run"):
            return write(processes.respond)

    n_told, *expected = write(respond)
    assert write(processes.respond) == (n_told, *expected)  # alone
    _, results = together(n, act)
    assert all(list(result) == expected for _, *result in results)
    assert sum(told for told, *_ in results) == n * n_told


@pytest.mark.parametrize("n", [2, 4])
def test_shared_gradients_and_losses_add_up_to_those_of_the_whole_batch(
    together, tmp_path, model, n
):
    """Each row has as many targets as it is long. Of 4 processes one has no row of the three."""
    batch = collate([([5, 1, 7, 2], 1), ([5, 6, 1, 8, 8, 9, 2], 2), ([5, 1, 2], 1)], pad_id=0)
    weights = [*model.requires_grad_(True).parameters()]

    def add(add_gradients):
        model.zero_grad()
        return add_gradients(model, *batch), [weight.grad.numpy().copy() for weight in weights]

    def act():
        with processes.joined(tmp_path / "run"):
            return add(processes.add_gradients)

    loss, gradients = add(add_gradients)
    assert add(processes.add_gradients)[0] == loss  # alone
    for ours, added in together(n, act)[1]:
        assert ours == pytest.approx(loss)
        for own, expected in zip(added, gradients, strict=True):
            torch.testing.assert_close(*map(torch.from_numpy, (own, expected)))


def test_the_others_work_in_a_copy_of_their_own_whatever_the_folder_is_called(
    together, tmp_path, monkeypatch
):
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "file").write_text("content")
    (tmp_path / "run" / "deep" / "er").touch()
    monkeypatch.chdir(tmp_path / "run" / "deep")

    def act():
        with processes.joined(Path("..")) as own:
            names = sorted(str(path.relative_to(own)) for path in own.rglob("*"))
            return own, own.resolve().name, names, (own / "file").read_text()

    _, [first, second] = together(2, act)
    assert first[0] == Path("..") != second[0] and not second[0].exists()
    assert first[1:] == second[1:] == ("run", ["deep", "deep/er", "file"], "content")


# Commands


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that one process has made, and a copy of its language model without a head."""
    path = tmp_path_factory.mktemp("alone")
    assert cli.main(f"pretrain --run {path / 'run'} {TINY} 120".split()) == 0
    shutil.copytree(path / "run", path / "without_head")
    assert cli.main(f"train --run {path / 'run'} {LPO}".split()) == 0
    return path


def log_of(path, name):
    return json.loads((path / name).read_text())


def tensors(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_commands_give_the_same_up_to_rounding_whoever_computes(alone, together, tmp_path, n):
    def act():
        first = cli.main(f"pretrain --run {tmp_path / 'run'} {TINY} 120".split())
        dist.destroy_process_group()
        # A process that is quick must not find the port of before, which another still holds.
        os.environ["MASTER_PORT"] = os.environ["NEXT"]
        return first, cli.main(f"train --run {tmp_path / 'r'} {LPO}".split())

    shutil.copytree(alone / "without_head", tmp_path / "r")
    texts, results = together(n, act)
    assert results == [(0, 0)] * n
    assert [text.count("wrote") for text in texts] == [2] + [0] * (n - 1)  # one speaks, and writes
    ours, others = (log_of(p / "run", "pretrain_log.json") for p in (alone, tmp_path))
    for own, other in zip(ours, others, strict=True):
        assert own == pytest.approx(other, rel=1e-4)
    # (The bias of the keys has no gradient but rounding, which Adam makes as large as any other.)
    ours, others = (tensors(p / "run" / "model.pt") for p in (alone, tmp_path))
    for key in ours:
        if not key.endswith("qkv.bias"):
            torch.testing.assert_close(ours[key], others[key], atol=2e-3, rtol=1e-2)
    # LPO has the same pairs and makes the same head, but for rounding that Adam enlarges.
    path = tmp_path / "r"
    assert {file.name for file in path.iterdir()} == {f.name for f in (alone / "run").iterdir()}
    ours, others = tensors(alone / "run" / "head.pt"), tensors(path / "head.pt")
    for key in ours:
        torch.testing.assert_close(ours[key], others[key], atol=2e-3, rtol=1e-2)
    ours, others = log_of(alone / "run", "lpo_log.json"), log_of(path, "lpo_log.json")
    for own, other in zip(ours, others, strict=True):
        for key in ("pairs", "dropped_prompts", "chosen_share", "rejected_share"):
            assert own[key] == other[key]
        for key in ("sampled_reward", "validation_reward"):
            assert own[key] == pytest.approx(other[key])


def test_bad_input_is_said_once_by_the_first_process(alone, together, monkeypatch):
    """The others would say the same. By then torchrun has ended them."""
    monkeypatch.setattr(cli, "ENOUGH_TO_SPEAK", 0.0)
    refused = together(2, lambda: cli.main(f"pretrain --run {alone / 'run'} {TINY} 7".split()))
    [first], later = map(said, refused[0])
    assert refused[1] == [2, 2] and "holds a run with other settings" in first
    assert not later or later[0].startswith("minilpo: process 1: ")


def test_one_that_dies_ends_the_others_and_one_line_says_so(together, tmp_path, monkeypatch):
    def die(*_):
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return processes.gathered(None)

    monkeypatch.setattr("minilpo.run.steps.pretrain", die)
    texts, results = together(
        3, lambda: cli.main(f"pretrain --run {tmp_path / 'run'} {TINY} 9".split())
    )
    assert results == [2, None, 2] and [len(said(text)) for text in texts] == [1, 0, 0]
    assert "one of them has ended" in said(texts[0])[0]


# Real ones


def torchrun(n, words):
    """Starts n processes, as a user does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, str(n), "-m", "--", "minilpo", *words.split()], **options)


def test_under_torchrun_a_refusal_is_one_line(tmp_path):
    started = torchrun(2, f"sample --run {tmp_path / 'run'}")
    _, errors = started.communicate(timeout=120)
    assert started.returncode and len(said(errors)) == 1
    assert "torchrun must start one of demo, pretrain" in said(errors)[0]


@pytest.mark.slow
def test_under_torchrun_one_that_dies_ends_all_with_one_line_and_the_work_is_kept(tmp_path):
    started = torchrun(2, f"pretrain --run {tmp_path / 'run'} {TINY} 100000")
    state = tmp_path / "run" / "pretrain_state.pt"
    deadline = time.monotonic() + 200
    while not state.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    own = [int(pid) for pid in children]
    assert len(own) == 2
    os.kill(max(own), signal.SIGKILL)
    _, errors = started.communicate(timeout=120)
    assert started.returncode and len(said(errors)) == 1, errors
    assert "one of them has ended" in said(errors)[0] or "told to end" in said(errors)[0]
    assert not [pid for pid in own if os.path.exists(f"/proc/{pid}")]
    assert tensors(state)["step"] >= 100

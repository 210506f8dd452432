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

from minilpo.decoding import Rollout, SampledHead, respond
from minilpo.lm.pretraining import add_gradients, collate
from minilpo.run import processes
from minilpo.tasks import Prompt
from tests.conftest import CHOICES, seeded

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


def take_for(monkeypatch, rank, size):
    monkeypatch.setattr(processes, "rank", lambda: rank)
    monkeypatch.setattr(processes, "size", lambda: size)


PROMPTS = [f"Mia has {n} apples. How many apples are left?" for n in (7, 3, 12, 3, 5)]  # 3 twice


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_responses_shared_among_processes_are_those_that_one_process_writes(
    monkeypatch, lm, tasks, head, size
):
    """In order, whoever asks. Of 6 processes some have no prompt; all draw on alike."""
    prompts = [Prompt(text, tasks[0]) for text in PROMPTS]
    asked, told = (lm, prompts, SampledHead(head, CHOICES)), []
    options = {"n_samples": 2, "max_new_tokens": 5}
    alone_generator, generators = seeded(0), [seeded(0) for _ in range(size)]
    expected, rewards = respond(*asked, alone_generator, **options)
    parts = []
    monkeypatch.setattr(processes, "gathered", lambda part: parts.append(part) or [whole, None])
    whole = [*range(5)], expected, rewards
    for rank, generator in enumerate(generators):
        take_for(monkeypatch, rank, size)
        processes.respond(*asked, generator, progress=told.append, **options)
        assert torch.equal(generator.get_state(), alone_generator.get_state())
    if size > 1:
        monkeypatch.setattr(processes, "gathered", lambda part: parts)
        assert sorted(p for part in parts if part for p in part[0]) == [*range(5)]
        assert sum(told) == size * 10 and (size > 4) == (None in parts)
    for rank in range(size):
        take_for(monkeypatch, rank, size)
        rollout, scored = processes.respond(*asked, seeded(0), **options)
        assert torch.equal(scored, rewards) and same(rollout, expected)


def same(a: Rollout, b: Rollout) -> bool:
    texts = (a.prompts, a.responses, a.n_samples) == (b.prompts, b.responses, b.n_samples)
    return texts and torch.equal(a.decisions.choice_ids, b.decisions.choice_ids)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_shared_gradients_and_losses_add_up_to_those_of_the_whole_batch(monkeypatch, model, size):
    """Each row has as many targets as it is long. Of 4 processes one has no row of the three."""
    batch = collate([([5, 1, 7, 2], 1), ([5, 6, 1, 8, 8, 9, 2], 2), ([5, 1, 2], 1)], pad_id=0)
    weights = [*model.requires_grad_(True).parameters()]
    loss = add_gradients(model, *batch)
    expected = [weight.grad.clone() for weight in weights]
    added = []  # what each process has to add: gradients, and the loss at the end
    monkeypatch.setattr(processes, "add_up", lambda values: added.append(values.clone()) or values)
    for rank in range(size):
        model.zero_grad()
        take_for(monkeypatch, rank, size)
        got = processes.add_gradients(model, *batch)
    if size == 1:
        assert got == loss and not added
        return
    total = sum(added)
    assert total[-1].item() == pytest.approx(loss)
    torch.testing.assert_close(total[:-1], torch.cat([part.flatten() for part in expected]))
    # What was added up is what each of them then has.
    monkeypatch.setattr(processes, "add_up", lambda values: total)
    assert processes.add_gradients(model, *batch) == pytest.approx(loss)
    torch.testing.assert_close([weight.grad for weight in weights], expected)


def test_the_others_work_in_a_copy_of_their_own_whatever_the_folder_is_called(
    tmp_path, monkeypatch
):
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "file").write_text("content")
    monkeypatch.chdir(tmp_path / "run" / "deep")
    take_for(monkeypatch, 1, 2)
    monkeypatch.setattr(processes.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(processes.dist, "destroy_process_group", lambda: None)
    content = {"file": b"content", "deep/er": b""}
    monkeypatch.setattr(processes, "gathered", lambda part: [content, part])
    with processes.joined(Path("..")) as own:
        assert own.resolve().parent.name.startswith("minilpo-") and own.name == "run"
        assert (own / "file").read_text() == "content" and (own / "deep" / "er").exists()
    assert not own.exists() and (tmp_path / "run" / "file").exists()


def test_alone_nothing_is_copied_or_asked():
    assert processes.size() == 1 and processes.rank() == 0
    assert processes.gathered("a") == ["a"]


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
    return json.loads((path / name).read_text())


def tensors(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_pretraining_is_the_same_up_to_rounding_whoever_computes(alone, tmp_path, n):
    ended = run(n, f"pretrain --run {tmp_path / 'run'} {TINY}")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("wrote") == 1  # one of them speaks, and writes
    ours, others = (log_of(p / "run", "pretrain_log.json") for p in (alone, tmp_path))
    for own, other in zip(ours, others, strict=True):
        assert own == pytest.approx(other, rel=1e-4)
    # (The bias of the keys has no gradient but rounding, which Adam makes as large as any other.)
    ours, others = (tensors(p / "run" / "model.pt") for p in (alone, tmp_path))
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
    ours, others = tensors(alone / "run" / "head.pt"), tensors(path / "head.pt")
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
        "one of them has ended" in said(errors)[0] or "what was finished is kept" in said(errors)[0]
    )
    assert not [pid for pid in own if os.path.exists(f"/proc/{pid}")]
    assert tensors(state)["step"] >= 100


def children_of(pid):
    """The processes that one has started."""
    return open(f"/proc/{pid}/task/{pid}/children").read().split()

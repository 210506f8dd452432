"""Several processes on one run: `torchrun --standalone --nproc-per-node 2 -m -- minilpo demo`.

Every process goes through the whole command. `respond` and `add_gradients` share the work: each
process does a part, and all get the results of all, so from there on they are the same again.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from minilpo.decoding import Rollout
from minilpo.decoding import generate as alone
from minilpo.decoding.rollout import concatenate
from minilpo.lm import pretraining
from minilpo.lm.model import GPT
from minilpo.machine.files import temporary_folder
from minilpo.machine.signals import LostError
from minilpo.tasks import Prompt

PATIENCE = timedelta(hours=2)  # the longest that a process waits for others


def size() -> int:
    """Counts the processes that work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process: 0, 1, ... The first one writes the files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextlib.contextmanager
def joined(folder: Path) -> Iterator[Path]:
    """Joins the processes that torchrun has started; yields the folder to work in.

    The first process works in the folder itself, the others silently in copies, which they remove.
    """
    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"all processes must be able to talk to each other, but {error}; "
            "start them with: torchrun --standalone --nproc-per-node 2 -m -- minilpo demo"
        ) from None
    try:
        paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        own = {str(p.relative_to(folder)): p.read_bytes() for p in paths} if rank() == 0 else {}
        files = gathered(own)[0]
        if rank() == 0:
            yield folder
            return
        with temporary_folder() as copy, open(os.devnull, "w") as nowhere:
            place = copy / (folder.resolve().name or "run")  # the name of ".." is no folder
            for name, data in files.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(data)
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield place
    finally:
        # Without a word to the others, who may be waiting for this one: they see that it has left.
        dist.destroy_process_group()


def gathered(part: Any) -> list[Any]:
    """Gathers one object from every process, in the order of the processes."""
    parts: list[Any] = [part] * size()
    if size() > 1:
        _exchange(dist.all_gather_object, parts, part)
    return parts


def add_up(values: Tensor) -> Tensor:
    """Adds up a tensor of every process, on the CPU, in place."""
    _exchange(dist.all_reduce, values)
    return values


def _exchange(function: Callable[..., object], *given: Any) -> None:
    """Calls a function of PyTorch's; its error has a stack trace of C++, ours is in words."""
    try:
        function(*given)
    except RuntimeError:
        raise LostError(
            f"all {size()} processes must go on to the end, but one of them has ended; "
            "what it said stands above, and what was finished stays: repeat the command"
        ) from None


def respond(
    lm: Any, prompts: list[Prompt], policy: Any, generator: torch.Generator, **options: Any
) -> tuple[Rollout, Tensor]:
    """Writes and scores like `decoding.respond`; each process does it for a part of the prompts."""
    N, progress = size(), options.get("progress")
    if N == 1:
        return alone.respond(lm, prompts, policy, generator, **options)
    if progress:  # the others are about as far
        options["progress"] = lambda n: progress(n * N)
    # A prompt that comes again gets other responses, so one process has to see all its copies.
    texts = list(dict.fromkeys(prompt.text for prompt in prompts))
    mine = set(texts[rank() :: N])
    numbers = [p for p, prompt in enumerate(prompts) if prompt.text in mine]
    part = None
    if numbers:
        own = [prompts[p] for p in numbers]
        part = (numbers, *alone.respond(lm, own, policy, generator, **options))
    else:  # as `generate` does: the generators of all processes go on alike
        torch.randint(2**63 - 1, (), generator=generator)
    shards, rollouts, rewards = zip(*filter(None, gathered(part)), strict=True)
    back = torch.tensor([p for shard in shards for p in shard]).argsort()
    return concatenate(rollouts).sorted_by(back), torch.cat(rewards)[back]


def add_gradients(model: GPT, token_ids: Tensor, target_mask: Tensor) -> float:
    """Does what `pretraining.add_gradients` does; each process has a part of the rows."""
    if size() == 1:
        return pretraining.add_gradients(model, token_ids, target_mask)
    rows, weights = slice(rank(), None, size()), list(model.parameters())
    own, loss = target_mask[rows], weights[0].new_zeros(())
    if len(own):  # a mean over the targets of the whole batch, of which these rows have a share
        share = int(own.sum()) / int(target_mask.sum())
        loss = share * pretraining.language_model_loss(model, token_ids[rows], own)
        loss.backward()
    # One message instead of one for each matrix. A process without a part of the batch adds zeros.
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    total = add_up(torch.cat([*(part.flatten() for part in parts), loss.detach()[None]]).cpu())
    for weight, part in zip(weights, total[:-1].split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight).to(weight.device)
    return total[-1].item()

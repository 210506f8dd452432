"""Several processes on one run: `torchrun --standalone --nproc-per-node 2 -m -- minilpo demo`.

Every process goes through the whole command. `respond` and `add_gradients` share the work: each
process does a part, and all get the results of all: so from there on they are the same again.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from minilpo.decoding import Policy, Rollout
from minilpo.decoding import generate as alone
from minilpo.decoding.rollout import concatenate
from minilpo.lm import pretraining
from minilpo.lm.language_model import LanguageModel
from minilpo.lm.model import GPT
from minilpo.machine.files import temporary_folder
from minilpo.machine.signals import LostError
from minilpo.tasks import Prompt

T = TypeVar("T")
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
    Raises ValueError if the other processes can't be reached.
    """
    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"all {os.environ.get('WORLD_SIZE')} processes must be able to talk to each other, but "
            f"{error}; start them with: torchrun --standalone --nproc-per-node 2 -m -- minilpo demo"
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


def gathered(part: T) -> list[T]:
    """Gathers one object from every process, in the order of the processes."""
    parts: list[Any] = [part] * size()
    if size() > 1:
        with _lost():
            dist.all_gather_object(parts, part)
    return parts


def respond(
    lm: LanguageModel,
    prompts: list[Prompt],
    policy: Policy,
    generator: torch.Generator,
    *,
    progress: Callable[[int], object] | None = None,
    **options: Any,
) -> tuple[Rollout, Tensor]:
    """Writes and scores like `decoding.respond`; each process does it for a part of the prompts."""
    N = size()
    if N == 1:
        return alone.respond(lm, prompts, policy, generator, progress=progress, **options)
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
    parts = [part for part in gathered(part) if part]
    shards, rollouts, rewards = zip(*parts, strict=True)
    back = torch.tensor([p for shard in shards for p in shard]).argsort()
    return concatenate(rollouts).sorted_by(back), torch.cat(rewards)[back]


def add_gradients(model: GPT, token_ids: Tensor, target_mask: Tensor) -> float:
    """Does what `pretraining.add_gradients` does; each process has a part of the rows."""
    if size() == 1:
        return pretraining.add_gradients(model, token_ids, target_mask)
    rows = slice(rank(), None, size())
    token_ids, own = token_ids[rows], target_mask[rows]
    # A mean over the targets of the whole batch, of which this process has a part, maybe none.
    share = int(own.sum()) / int(target_mask.sum())
    weights = list(model.parameters())
    loss = weights[0].new_zeros(())
    if len(own):
        loss = share * pretraining.language_model_loss(model, token_ids, own)
        loss.backward()
    # One message instead of one for each matrix. A process without a part of the batch adds zeros.
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    total = add_up(torch.cat([*(part.flatten() for part in parts), loss.detach()[None]]).cpu())
    for weight, part in zip(weights, total.split([*(w.numel() for w in weights), 1]), strict=False):
        weight.grad = part.view_as(weight).to(weight.device)
    return total[-1].item()


def add_up(values: Tensor) -> Tensor:
    """Adds up a tensor of every process, on the CPU, in place."""
    with _lost():
        dist.all_reduce(values)
    return values


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    """Raises a LostError in words instead of PyTorch's, which has a stack trace of its C++."""
    try:
        yield
    except RuntimeError:
        raise LostError(
            f"all {size()} processes must go on to the end, but one of them has ended; "
            "what it said stands above, and what was finished stays: repeat the command"
        ) from None

"""Several processes on one run: `torchrun --standalone --nproc-per-node 2 -m -- minilpo demo`.

Every process goes through the whole command. `respond` and `add_gradients` share the work: each
process does a shard, and all get the results of all, so from there on they are the same again.
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
from minilpo.run.workers import shared_map
from minilpo.tasks import Prompt


@contextlib.contextmanager
def joined(folder: Path) -> Iterator[Path]:
    """Joins the processes that torchrun has started; yields the folder to work in.

    The first process works in the folder itself, the others silently in copies, which they remove.
    """
    exchange(dist.init_process_group, "gloo", timeout=timedelta(hours=2))  # the longest wait
    if dist.get_rank() == 0:
        paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        gathered({str(path.relative_to(folder)): path.read_bytes() for path in paths})
        yield folder
        return
    with temporary_folder() as copy, open(os.devnull, "w") as nowhere:
        place = copy / (folder.resolve().name or "run")  # the name of ".." is no folder
        for name, data in gathered(None)[0].items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield place


def gathered(shard: Any) -> list[Any]:
    """Gathers one object from every process, in the order of the processes."""
    shards: list[Any] = [None] * dist.get_world_size()
    exchange(dist.all_gather_object, shards, shard)
    return shards


def exchange(function: Callable[..., object], *given: Any, **options: Any) -> None:
    """Calls a function of PyTorch's; its error has a stack trace of C++, ours is in words."""
    try:
        function(*given, **options)
    except RuntimeError:
        raise ConnectionAbortedError(
            "all processes must go on to the end, but one of them has ended; "
            "what it said stands above, and what was finished stays: repeat the command"
        ) from None


def respond(
    lm: Any, prompts: list[Prompt], policy: Any, generator: torch.Generator, **options: Any
) -> tuple[Rollout, Tensor]:
    """Does what `decoding.respond` does; each process has a shard of the prompts.

    Without torchrun, `shared_map` shares the batches with other processes, if the CPU computes.
    """
    if not dist.is_initialized():
        run = shared_map if next(lm.model.parameters()).is_cpu else map
        return alone.respond(lm, prompts, policy, generator, run=run, **options)
    N, progress = dist.get_world_size(), options.get("progress")
    if progress:  # the others are about as far
        options["progress"] = lambda n: progress(n * N)
    # A prompt that comes again gets other responses, so one process has to see all its copies.
    texts = list(dict.fromkeys(prompt.text for prompt in prompts))
    mine, shard = set(texts[dist.get_rank() :: N]), None
    if numbers := [p for p, prompt in enumerate(prompts) if prompt.text in mine]:
        own = [prompts[p] for p in numbers]
        shard = numbers, *alone.respond(lm, own, policy, generator, **options)
    else:  # as `generate` does: the generators of all processes go on alike
        torch.randint(2**63 - 1, (), generator=generator)
    places, rollouts, rewards = zip(*filter(None, gathered(shard)), strict=True)
    back = torch.tensor(sum(places, [])).argsort()
    return concatenate(rollouts).sorted_by(back), torch.cat(rewards)[back]


def add_gradients(model: GPT, token_ids: Tensor, target_mask: Tensor) -> float:
    """Does what `pretraining.add_gradients` does; each process has a shard of the rows."""
    if not dist.is_initialized():
        return pretraining.add_gradients(model, token_ids, target_mask)
    rows, weights = slice(dist.get_rank(), None, dist.get_world_size()), list(model.parameters())
    own, loss = target_mask[rows], weights[0].new_zeros(())
    if len(own):  # a mean over the targets of the whole batch, of which these rows have a share
        share = int(own.sum()) / int(target_mask.sum())
        loss = share * pretraining.language_model_loss(model, token_ids[rows], own)
        loss.backward()
    # One message instead of one for each matrix. A process without rows adds zeros.
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    total = torch.cat([*(part.flatten() for part in parts), loss.detach()[None]]).cpu()
    exchange(dist.all_reduce, total)  # adds up, in place
    for weight, part in zip(weights, total[:-1].split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight).to(weight.device)
    return total[-1].item()

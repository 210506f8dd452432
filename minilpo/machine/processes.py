"""Several processes on one run: `torchrun --standalone --nproc-per-node 2 -m minilpo demo`.

Every process goes through the whole command. Where there is much to do, each does a part, and all
get the results of all: so from there on they are the same again. Alone, a process does everything,
and nothing here costs anything.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minilpo.machine.files import write_bytes
from minilpo.machine.signals import LostError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # the longest that a process waits for others


def size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is: 0, 1, ... The first one writes the files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextlib.contextmanager
def joined(folder: Path) -> Iterator[Path]:
    """Joins the processes that torchrun has started.

    Only the first one works in the folder itself, and speaks. Every other one works in a copy of
    its own, which it throws away in the end: so no file is written twice, or read while another
    process writes it.

    Args:
        folder: that of the run; it need not exist.

    Yields:
        The folder to work in.

    Raises:
        ValueError: if the other processes can't be reached.
    """
    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"all {os.environ.get('WORLD_SIZE')} processes must be able to talk to each other, but "
            f"{error}; start them with: torchrun --standalone --nproc-per-node 2 -m minilpo demo"
        ) from None
    try:
        [files, *_] = gathered(_content(folder) if rank() == 0 else {})
        if rank() == 0:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="minilpo-") as copy, _silence():
            own = Path(copy) / (folder.resolve().name or "run")  # the name of ".." is no folder
            for name, data in files.items():
                path = own / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, data)
            yield own
    finally:
        # Without a word to the others, who may be waiting for this one: they see that it has left.
        dist.destroy_process_group()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing that is printed is seen."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _content(folder: Path) -> dict[str, bytes]:
    """The files in a folder, and in folders in it, by their path."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of what there is to do: every N-th, so that all get a bit of everything.

    >>> list(share("abc"))  # alone
    ['a', 'b', 'c']
    """
    return items[rank() :: size()]


def together(parts: Sequence[T]) -> list[T]:
    """What all processes have made of their shares, in the order of the whole: undoes `share`.

    Raises:
        LostError: if one of the processes has ended.

    >>> together(["a", "b", "c"])
    ['a', 'b', 'c']
    """
    shares = gathered(list(parts))
    turns = range(max(map(len, shares)))
    return [part[turn] for turn in turns for part in shares if turn < len(part)]


def for_all(progress: Callable[[int], object]) -> Callable[[int], object]:
    """What is to be told of this process's share: the others are about as far."""
    return lambda n: progress(n * size())


def gathered(part: T) -> list[T]:
    """What every process has made, in the order of the processes.

    Raises:
        LostError: if one of them has ended.

    >>> gathered("all")
    ['all']
    """
    if size() == 1:
        return [part]
    parts: list[Any] = [None] * size()
    with _lost():
        dist.all_gather_object(parts, part)
    return parts


def add_gradients(module: nn.Module) -> None:
    """Adds up the gradients of all processes, in place: each then has the whole batch's.

    A sum and no mean: each process has divided by the size of the whole batch.

    Raises:
        LostError: if one of them has ended.
    """
    if size() == 1:
        return
    weights = list(module.parameters())
    # One message instead of one for each matrix. A process without a part of the batch adds zeros.
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    total = add_up(torch.cat([part.flatten() for part in parts]).cpu())
    for weight, part in zip(weights, total.split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight).to(weight.device)


def add_up(values: Tensor) -> Tensor:
    """Adds up a tensor of every process, on the CPU, in place; alone, it stays as it is.

    Raises:
        LostError: if one of the processes has ended.
    """
    if size() > 1:
        with _lost():
            dist.all_reduce(values)
    return values


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    """An error in words instead of PyTorch's, which has a stack trace of its C++ in it."""
    try:
        yield
    except RuntimeError:
        raise LostError(
            f"all {size()} processes must go on to the end, but one of them has ended; "
            "what it said stands above, and what was finished stays: repeat the command"
        ) from None

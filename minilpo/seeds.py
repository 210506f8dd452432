"""Results depend on seeds, one generator per purpose, and not on PyTorch's global switches.

A generator is made from the run's seed and its purpose. So a phase draws the same numbers whether
or not the phases before it ran in the same process, and a run can resume anywhere.
"""

import contextlib
import random
from collections.abc import Iterator

import torch


def python_rng(seed: int, purpose: str) -> random.Random:
    """Makes a generator for text.

    >>> python_rng(0, "demonstrations").random() == python_rng(0, "demonstrations").random()
    True
    """
    return random.Random(f"{seed} {purpose}")


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    """Makes a generator for tensors. It is on the CPU, so every device gets the same numbers."""
    return torch.Generator().manual_seed(python_rng(seed, purpose).getrandbits(63))


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Sets PyTorch's global switches as they are at its start: float32, CPU, with gradients.

    It stands before each function that makes weights, generates, trains or loads: a notebook may
    have changed the default dtype or device, or may call the function where gradients are off.

    >>> with torch.no_grad():
    ...     torch_defaults()(torch.is_grad_enabled)()
    True
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    # Within a `torch.device` every call of PyTorch is slower, so only where it is needed.
    on_cpu = contextlib.nullcontext() if device.type == "cpu" else torch.device("cpu")
    try:
        with on_cpu, torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)

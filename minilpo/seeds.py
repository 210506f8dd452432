"""Where randomness comes from: one generator per purpose, made from the run's seed and its name.

So a phase draws the same numbers whether or not the phases before it ran in the same process, and a
run can resume anywhere.
"""

import random

import torch


def python_rng(seed: int, purpose: str) -> random.Random:
    """A generator for text.

    >>> python_rng(0, "demonstrations").random() == python_rng(0, "demonstrations").random()
    True
    """
    return random.Random(f"{seed} {purpose}")


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    """A generator for tensors, on the CPU: the same numbers whatever device they then move to."""
    return torch.Generator().manual_seed(python_rng(seed, purpose).getrandbits(63))

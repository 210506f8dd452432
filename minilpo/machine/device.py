"""Where the tensors of a language model and a head live: on the CPU, or on one accelerator.

What is written by them comes back to the CPU: rollouts, rewards, pairs and logs are always there.
"""

import os

import torch

CPU = torch.device("cpu")


def device_of(name: str) -> torch.device:
    """The device of a name that PyTorch knows. Of several processes, each takes a card of its own.

    Args:
        name: "cpu", "cuda", "cuda:1" and the like.

    Raises:
        ValueError: if PyTorch doesn't know it, or can't compute on it here.

    >>> device_of("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(name)
        if device.type == "cpu" and device.index is not None:
            raise ValueError("the CPU is one device, without a number")
        if device.type != "cpu" and device.index is None:
            # torchrun numbers the processes of one machine; alone, a process takes the first card.
            device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
        # Not every device that has a name can compute, and some say so in their own way.
        torch.ones(1, device=device).sum().item()
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            "--device must name a device that PyTorch can compute on here, such as cpu or cuda, "
            f"got {name!r} ({reason}); leave it out to compute on the CPU"
        ) from None
    return device

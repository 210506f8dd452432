"""The device of a language model and a head: the CPU, or one accelerator.

Rollouts, rewards, pairs and logs are always on the CPU.
"""

import os

import torch

CPU = torch.device("cpu")


def device_of(name: str) -> torch.device:
    """Returns the device of a name such as "cpu", "cuda" or "cuda:1".

    Of several processes on a machine each takes a card of its own. Raises ValueError if PyTorch
    doesn't know the device, or can't compute on it here.

    >>> device_of("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(name)
        if device.type == "cpu" and device.index is not None:
            raise ValueError("the CPU is one device, without a number")
        if device.type != "cpu" and device.index is None:  # torchrun numbers the processes
            device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
        torch.ones(1, device=device).sum().item()  # not every device that has a name can compute
    except Exception as error:  # some say so in their own way
        reason = str(error).split("\n")[0]
        raise ValueError(
            "--device must name a device that PyTorch can compute on here, such as cpu or cuda, "
            f"got {name!r} ({reason}); leave it out to compute on the CPU"
        ) from None
    return device

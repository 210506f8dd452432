"""Values as JSON and back, between a grader and an examinee that it doesn't trust. Never pickle.

A message is a dictionary, sent as the number of its bytes and then its JSON. What comes back may be
anything, so its size, its depth and every part of it are looked at.
"""

import base64
import json
import math
import numbers
import random
import struct
from functools import lru_cache
from typing import IO, Any

import torch
from torch import Tensor

LONGEST = 4 * 2**20  # bytes of a message
DEEPEST = 20  # lists within lists
NO_ANSWER = "its process sent something that is no answer; a cell must only define what is asked"
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128),
    )
}


def pack(value: Any, depth: int = 0) -> Any:
    """A value in a form that JSON can hold.

    Tensors are given bit by bit, and so are floats, generators of PyTorch and `random.Random`. Of
    anything else only the name of its class is told.

    Raises:
        ValueError: if lists lie too deep within lists, or a tensor can't be sent.

    >>> pack((1, float("nan"), [True, None, "fox"]))
    {'tuple': [1, {'float': 'nan'}, [True, None, 'fox']]}
    >>> pack({1, 2})
    {'other': ['builtins', 'set']}
    """
    if depth > DEEPEST:
        raise ValueError(f"the result must not have lists more than {DEEPEST} deep in each other")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Tensor):
        return {"tensor": _tensor_parts(value)}
    if isinstance(value, numbers.Integral):
        return int(value)  # NumPy's too
    if isinstance(value, numbers.Real):
        return {"float": float(value).hex()}
    if isinstance(value, (list, tuple)):
        parts = [pack(part, depth + 1) for part in value]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, torch.Generator):
        return {"generator": _tensor_parts(value.get_state())}
    if isinstance(value, random.Random):
        return {"rng": pack(value.getstate())}
    return {"other": [type(value).__module__.split(".")[0], type(value).__name__]}


def unpack(form: Any) -> Any:
    """The value that `pack` gave a form.

    Raises:
        ValueError: if it is no such form, whatever is wrong with it.

    >>> unpack(pack((1, float("inf"), torch.tensor([1.5, -2.0]))))
    (1, inf, tensor([ 1.5000, -2.0000]))
    >>> unpack({"tensor": ["float32", [2], "AAAA"]})
    Traceback (most recent call last):
    ValueError: its process sent something that is no answer; ...
    """
    try:
        return _unpacked(form, 0)
    except Exception:  # PyTorch raises various ones
        raise ValueError(NO_ANSWER) from None


def _unpacked(form: Any, depth: int) -> Any:
    if depth > 2 * DEEPEST:  # a tuple is a list within a dictionary
        raise ValueError
    if form is None or isinstance(form, (bool, str, int)):
        return form
    if isinstance(form, list):
        return [_unpacked(part, depth + 1) for part in form]
    [(kind, content)] = form.items()
    if kind == "float":
        return float.fromhex(content)
    if kind == "tuple":
        return tuple(_unpacked([*content], depth + 1))
    if kind == "tensor":
        return _tensor(*content)
    if kind == "generator":
        generator = torch.Generator()
        generator.set_state(_tensor(*content))
        return generator
    if kind == "rng":
        rng = random.Random()
        rng.setstate(_unpacked(content, depth + 1))
        return rng
    if kind == "other":
        module, name = content
        return _stranger(str(module)[:60], str(name)[:60])
    raise ValueError


@lru_cache(maxsize=100)  # so that it is the same object when it comes again
def _stranger(module: str, name: str) -> Any:
    """An object of another class, so that a message can say which."""
    if (module, name) == ("builtins", "generator"):  # exercises know what to say of these two
        return (part for part in [None])
    if (module, name) == ("builtins", "coroutine"):
        nothing = _nothing()
        nothing.close()
        return nothing
    return type(name, (), {"__module__": module})()


async def _nothing() -> None: ...


def _tensor_parts(tensor: Tensor) -> list[Any]:
    """Its dtype, its shape, and its bytes in base64."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or dtype not in DTYPES:
        raise ValueError(
            "the result must be an ordinary tensor in the CPU's memory, got one with "
            f"{tensor.layout}, {tensor.dtype}, on {tensor.device}"
        )
    if tensor.numel() * tensor.element_size() > LONGEST // 2:
        raise ValueError(f"the result is too large: a tensor of shape {tuple(tensor.shape)}")
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes()
    return [dtype, list(tensor.shape), base64.b64encode(data).decode()]


def _tensor(name: str, shape: list[int], text: str) -> Tensor:
    dtype, data = DTYPES[name], bytearray(base64.b64decode(text, validate=True))
    if len(shape) > 32 or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ValueError
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError
    if not data:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(data, dtype=torch.uint8)
    # A truth value has to be 0 or 1, and anybody may send a 2.
    return (flat != 0 if dtype == torch.bool else flat.view(dtype)).reshape(shape)


# Messages


def send(file: IO[bytes], message: dict[str, Any]) -> None:
    """Sends a message.

    Raises:
        ValueError: if it is too long.
        OSError: if nobody listens any more.
    """
    data = json.dumps(message, allow_nan=False).encode()
    if len(data) > LONGEST:
        raise ValueError(f"the result is too large: {len(data):,} bytes as text")
    file.write(struct.pack(">I", len(data)) + data)
    file.flush()


def receive(file: IO[bytes]) -> dict[str, Any]:
    """Waits for a message.

    Raises:
        EOFError: if none can come any more.
        ValueError: if what comes is none.
    """
    length = _exactly(file, 4)
    [n_bytes] = struct.unpack(">I", length)
    if n_bytes > LONGEST:
        raise ValueError(NO_ANSWER)
    try:
        message = json.loads(_exactly(file, n_bytes))
    except (ValueError, RecursionError):
        raise ValueError(NO_ANSWER) from None
    if not isinstance(message, dict):
        raise ValueError(NO_ANSWER)
    return message


def _exactly(file: IO[bytes], n_bytes: int) -> bytes:
    data = file.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError
    return data

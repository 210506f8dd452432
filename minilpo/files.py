"""Reading and writing files: whole or not at all, and nothing that runs code when it is opened."""

import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: to a temporary file beside it, which then takes its name.

    Raises:
        OSError: if the folder can't be written or the disk is full; an older file of that name is then untouched.

    >>> folder = Path(tempfile.mkdtemp())
    >>> write_bytes(folder / "a.txt", b"hello")
    >>> [path.name for path in folder.iterdir()]
    ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C too leaves nothing half-written behind
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # the file that was wanted, not the temporary one
        raise


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in the order of the keys given, indented by two spaces."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON; raises ValueError if the file is cut short or isn't JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be a JSON file, got something damaged ({error}); delete it and make it anew") from None


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Saves a dictionary of tensors, numbers and strings, the same bytes for the same content."""
    buffer = io.BytesIO()  # a file name would become part of the bytes
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_tensors(path: Path) -> dict[str, Any]:
    """Loads what `save_tensors` saved; raises ValueError if the file is damaged. Never runs code from the file."""
    data = path.read_bytes()
    try:
        return torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # a damaged archive raises whatever its reader stumbled on
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} must be a whole checkpoint, got a damaged file ({reason}); delete it and run that step again"
        ) from None

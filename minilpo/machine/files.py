"""Reading and writing files: whole or not at all, none damaged is believed, none runs code.

What a run reads back is sealed: the file carries its own checksum, a checkpoint as the comment that
ends every zip archive, a JSON file as its last entry. A single wrong bit shows. What fits its
checksum is believed: we wrote it. If it is strange all the same, `must_hold` says so in one line.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from minilpo.machine.text import named, one_line
from minilpo.seeds import torch_defaults

LARGEST_FILE = 2**31  # bytes; nothing that minilpo writes comes near
CHECKSUM = 64  # characters of a SHA-256
DAMAGED = "delete it and repeat the step that made it"


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: to a partial file beside it, which then takes its name.

    A file that was there keeps its permissions. A process that is killed in between leaves the
    partial file, see `tidy`.

    Raises:
        OSError: if the folder isn't there or can't be written, or the disk is full; an older file
            is then untouched.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_bytes(folder / "a.txt", b"hello")
    >>> [path.name for path in folder.iterdir()]
    ['a.txt']
    """
    partial = path.parent / f".{path.name}.partial"
    try:
        with _new_file(partial) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(partial, stat.S_IMODE(path.stat().st_mode))
        os.replace(partial, path)
    except BaseException as error:  # Ctrl-C too leaves nothing half-written behind
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # the file that was wanted, not the partial one
        raise


def _new_file(path: Path) -> BinaryIO:
    """A new file in the place of an old one. A link of that name is never followed."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")  # 0o666 less what the umask says


def tidy(*folders: Path) -> None:
    """Removes partial files that a killed process has left in folders of ours."""
    for folder in folders:
        for path in list(folder.glob(".*.partial")):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def work_in(folder: Path, megabytes: int = 0) -> Iterator[None]:
    """Makes a folder if need be, and keeps it for this process: a second one gets an error.

    That the folder can be written, and has room, is tried at once and not after the work. A folder
    that is still empty in the end, because nothing came of it, is removed again.

    Args:
        folder: where files are going to be written.
        megabytes: how much room there must be.

    Raises:
        ValueError: if another process works there.
        OSError: if the folder can't be made or written, or the disk is too full.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"{folder} must be a new or empty folder, got a file of that name; choose another"
        )
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(folder):
            _try_to_write(folder, megabytes * 10**6)
            yield
    finally:
        with contextlib.suppress(OSError):
            for path in made:  # from the innermost outwards, as long as they are empty
                path.rmdir()


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """The operating system forgets this lock with the process, so no stale one is in the way."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, PermissionError):
        # Windows has no such locks; and `_try_to_write` says what can't be written.
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # else it knows no locks
                raise ValueError(
                    f"{folder} must be used by one minilpo at a time, but another one is at work "
                    "there; wait until it has ended, or choose another folder"
                ) from None
        yield
    finally:
        os.close(handle)


def _try_to_write(folder: Path, n_bytes: int) -> None:
    """Takes room on the disk for a moment, to learn now and not later that there is none."""
    trial = folder / ".trial.partial"
    try:
        with _new_file(trial) as file:
            if n_bytes and hasattr(os, "posix_fallocate"):
                try:
                    os.posix_fallocate(file.fileno(), 0, n_bytes)
                except OSError as error:
                    # Some file systems can't take room beforehand, and say so.
                    if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                        raise
    except OSError as error:
        error.filename = str(folder)
        raise
    finally:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)


def read_bytes(path: Path) -> bytes:
    """Reads a file, if it is one: a device or a pipe could keep a reader waiting for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} must be a file, got something else of that name; remove it")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{path} must be a file of minilpo, got one of {size:,} bytes; move it")
    return path.read_bytes()


def digest_of(path: Path) -> str:
    """Computes the SHA-256 of a file's content, in hexadecimal digits."""
    return _checksum(read_bytes(path))


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def must_hold(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Turns whatever a reader of strange content stumbles on into one line with the file's name.

    Raises ValueError for any error within, but for one of the disk or for too little memory.

    >>> with must_hold(Path("a.json"), "a step", "make a new one"):
    ...     {"loss": 0.5}["step"]
    Traceback (most recent call last):
    ValueError: a.json must hold a step, but KeyError: 'step'; make a new one
    """
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        why = one_line(str(error), 200) if type(error) is ValueError else named(error)
        raise ValueError(f"{path} must hold {what}, but {why}; {remedy}") from None


# JSON


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in the order of the keys given, indented by two spaces."""
    write_bytes(path, (_dump(content) + "\n").encode())


def write_sealed_json(path: Path, content: dict[str, Any]) -> None:
    """Does `write_json` for what a run reads back: the last entry is the checksum of the others."""
    write_json(path, {**content, "sha256": _checksum(_dump(content).encode())})


def read_sealed_json(path: Path, remedy: str = DAMAGED) -> dict[str, Any]:
    """Reads what `write_sealed_json` wrote.

    Raises ValueError if the file is damaged or was changed by hand; it ends with the remedy.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.json"
    >>> write_sealed_json(path, {"a": 1})
    >>> read_sealed_json(path)
    {'a': 1}
    >>> _ = path.write_text(path.read_text().replace("1", "2", 1))
    >>> read_sealed_json(path)
    Traceback (most recent call last):
    ValueError: ... must hold what minilpo wrote, but its content doesn't fit its checksum: ...
    """
    data = read_bytes(path)
    with must_hold(path, "what minilpo wrote", remedy):
        content = json.loads(data)
        if content.pop("sha256", None) != _checksum(_dump(content).encode()):
            raise ValueError(
                "its content doesn't fit its checksum: it was damaged, changed by hand, or made by "
                "another version of minilpo"
            )
        return content


def _dump(content: Any) -> str:
    return json.dumps(content, indent=2, allow_nan=False)


# Checkpoints


@torch_defaults()
def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Saves a dictionary of tensors, numbers and strings, sealed; same content, same bytes.

    The file is a zip archive, as PyTorch writes it. It ends with a comment, for which there is room
    in the format: the checksum of everything before. `torch.load` reads it as it is.
    """
    buffer = io.BytesIO()  # a file name would become part of the bytes
    torch.save(_on_cpu(content), buffer)
    # The archive ends with the length of its comment, until now 0.
    data = buffer.getvalue()[:-2] + CHECKSUM.to_bytes(2, "little")
    write_bytes(path, data + _checksum(data).encode())


def _on_cpu(content: Any) -> Any:
    """The same with all tensors on the CPU: every machine can read those."""
    if isinstance(content, dict):
        return {name: _on_cpu(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_on_cpu(value) for value in content]
    return content.cpu() if isinstance(content, torch.Tensor) else content


@torch_defaults()
def load_tensors(path: Path, remedy: str = DAMAGED) -> dict[str, Any]:
    """Loads what `save_tensors` saved, to the CPU. Never runs code from the file.

    Raises ValueError if the file is damaged; it ends with the remedy.
    """
    data = read_bytes(path)
    with must_hold(path, "what minilpo saved", remedy):
        if data[-CHECKSUM:] != _checksum(data[:-CHECKSUM]).encode():
            raise ValueError(
                "its content doesn't fit its checksum: "
                "it was cut short, damaged or not made by minilpo"
            )
        try:
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except pickle.UnpicklingError:  # PyTorch's text tells how to run the code
            raise ValueError("it is damaged: it holds more than numbers and text") from None

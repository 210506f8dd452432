"""Writes files whole or not at all, and believes none that isn't as it was written.

A folder of ours has a record: the SHA-256 of every file that a finished step has written. Reading
compares, so a single wrong bit shows. What fits is believed, because we wrote it.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from minilpo.machine.text import named, one_line
from minilpo.seeds import torch_defaults

RECORD = "record.json"
Entry = tuple[Any, dict[str, bytes]]  # the settings of a step and the files that it writes


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: to a partial file beside it, which then takes its name.

    A file that was there keeps its permissions, and after an OSError its content too.
    """
    with _or_nothing(path):
        write_partial(path, data)
        os.replace(partial_of(path), path)


def partial_of(path: Path) -> Path:
    """Names the partial file beside a file."""
    return path.parent / f".{path.name}.partial"


def write_partial(path: Path, data: bytes) -> None:
    """Writes the partial file of a path, with the permissions that the file has, if it exists."""
    with _or_nothing(path):
        with _new_file(partial_of(path)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(partial_of(path), stat.S_IMODE(path.stat().st_mode))


@contextlib.contextmanager
def _or_nothing(path: Path) -> Iterator[None]:
    """Removes the partial file after any error; an OSError names the file that was wanted."""
    try:
        yield
    except BaseException as error:  # Ctrl-C too leaves nothing half-written
        with contextlib.suppress(OSError):
            partial_of(path).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def _new_file(path: Path) -> BinaryIO:
    """Opens a new file in the place of an old one. A link of that name is never followed."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")  # 0o666 less what the umask says


def read_bytes(path: Path) -> bytes:
    """Reads a file, if it is one: a device or a pipe could keep a reader waiting for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} must be a file, got something else of that name; remove it")
    return path.read_bytes()


def digest_of(path: Path) -> str:
    """Computes the SHA-256 of a file's content, in hexadecimal digits."""
    return sha256(read_bytes(path))


def sha256(data: bytes) -> str:
    """Computes the SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Record:
    """The record of a folder: for each finished step its settings and the SHA-256 of its files.

    It lies in `record.json`, the only file that carries a checksum of its own; a new folder has
    none. Raises ValueError if it is damaged or names files elsewhere; the remedy ends the message.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> Record(folder, "").commit({"greet": ({"seed": 0}, {"a.txt": b"hello"})})
    >>> record = Record(folder, "")
    >>> record.settings_of("greet"), record.read("a.txt", "")
    ({'seed': 0}, b'hello')
    >>> _ = (folder / "a.txt").write_bytes(b"Hello")
    >>> record.read("a.txt", "greet again")
    Traceback (most recent call last):
    ValueError: ... must be the file that record.json names, but it was changed or damaged; greet
    again
    """

    def __init__(self, folder: Path, remedy: str):
        self.folder, self.path = folder, folder / RECORD
        self.steps: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}  # spent on each phase, for the steps to add to
        self.gone: list[str] = []  # files that the last commit has removed
        if not self.path.exists():
            return
        data = read_bytes(self.path)
        with must_hold(self.path, "a record as minilpo wrote it", remedy):
            content = json.loads(data)
            if content.pop("sha256", None) != _seal(content):
                raise ValueError("it was damaged, changed by hand or made by another version")
            self.steps, self.seconds = content["steps"], content["seconds"]
            self.gone = content["gone"]
            for name in (*self.files, *self.gone):  # in a stranger's folder they may be any
                if folder.resolve() not in ((folder / name).parent.resolve() / "name").parents:
                    raise ValueError(f"it names {name!r}, which is elsewhere")

    @property
    def files(self) -> dict[str, str]:
        """The SHA-256 of every file, by its name in the folder."""
        return {name: sha for step in self.steps.values() for name, sha in step["files"].items()}

    def settings_of(self, step: str) -> Any:
        """The settings that a step was finished with, or None if it isn't finished."""
        return self.steps[step]["settings"] if step in self.steps else None

    def commit(self, finished: dict[str, Entry], undone: Sequence[str] = ()) -> None:
        """Finishes steps: all files and entries come into force together, or none of them.

        1. Every new file is written beside the old one. 2. The record names the new ones: from now
        on they count. 3. They take their places, and files that no step names any more go. A
        process that is killed before 2 changes nothing; after 2, `settle` repeats 3. Steps that
        are `undone` no longer count, and their files go.
        """
        steps = {step: entry for step, entry in self.steps.items() if step not in undone}
        for step, (settings, files) in finished.items():
            digests = {name: sha256(data) for name, data in files.items()}
            steps[step] = {"settings": settings, "files": digests}
        new = {name: data for _, files in finished.values() for name, data in files.items()}
        before, self.steps = self.files, steps
        self.gone = sorted(before.keys() - self.files.keys())
        content = {"steps": steps, "seconds": self.seconds, "gone": self.gone}
        try:
            for name, data in new.items():
                if "/" in name:  # the folder itself may have been removed: that is an error
                    (self.folder / name).parent.mkdir(exist_ok=True)
                write_partial(self.folder / name, data)
            write_bytes(self.path, json_bytes({**content, "sha256": _seal(content)}))
        except OSError:  # the disk is full, for example
            for name in new:
                partial_of(self.folder / name).unlink(missing_ok=True)
            raise
        self.settle()

    def settle(self) -> None:
        """Ends a commit: new files take their places, and files that are no longer named go.

        Partial files that the record doesn't name are of a commit that was never made: they go too.
        """
        files = self.files
        for folder in {(self.folder / name).parent for name in (RECORD, *files)}:
            for partial in list(folder.glob(".*.partial")):
                path = folder / partial.name[1 : -len(".partial")]
                name = path.relative_to(self.folder).as_posix()
                if name in files and digest_of(partial) == files[name]:
                    os.replace(partial, path)
                else:
                    partial.unlink(missing_ok=True)
        for name in self.gone:
            (self.folder / name).unlink(missing_ok=True)

    def holds(self, name: str) -> bool:
        """Tells whether the record names a file that is there."""
        path = self.folder / name
        return name in self.files and (path.is_file() or partial_of(path).is_file())

    def read(self, name: str, remedy: str) -> bytes:
        """Reads a file that the record names; raises ValueError if it isn't as it was written."""
        path = self.folder / name
        for file in (path, partial_of(path)):  # which counts, if its commit was interrupted
            if file.exists():
                data = read_bytes(file)
                if sha256(data) == self.files.get(name):
                    return data
        what = "was changed or damaged" if path.exists() else "isn't there"
        raise ValueError(f"{path} must be the file that {RECORD} names, but it {what}; {remedy}")


def _seal(content: Any) -> str:
    return sha256(json_bytes(content))


@contextlib.contextmanager
def must_hold(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Turns any error of a reader of strange content into one line with the file's name.

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


# JSON and tensors


def json_bytes(content: Any) -> bytes:
    """Returns JSON in the order of the keys given, indented by two spaces."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


@torch_defaults()
def tensor_bytes(content: dict[str, Any]) -> bytes:
    """Returns a dictionary of tensors, numbers and strings as `torch.load` reads it from a file.

    The same content gives the same bytes, whatever device the tensors are on.
    """
    buffer = io.BytesIO()  # a file name would become part of the bytes
    torch.save(_on_cpu(content), buffer)
    return buffer.getvalue()


def _on_cpu(content: Any) -> Any:
    """Brings all tensors to the CPU: every machine can read those."""
    if isinstance(content, dict):
        return {name: _on_cpu(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_on_cpu(value) for value in content]
    return content.cpu() if isinstance(content, torch.Tensor) else content


@torch_defaults()
def tensors_of(data: bytes) -> dict[str, Any]:
    """Reads `tensor_bytes`, to the CPU. Never runs code; raises ValueError if there is some."""
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:  # PyTorch's text tells how to run the code
        raise ValueError("it is damaged: it holds more than numbers and text") from None


# One process per folder


@contextlib.contextmanager
def work_in(folder: Path, megabytes: int = 0) -> Iterator[None]:
    """Makes a folder if need be, and keeps it for this process: a second one gets a ValueError.

    Raises an OSError at once, not after the work, if the folder can't be written or lacks room. A
    folder that is still empty in the end is removed again.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"{folder} must be a new or empty folder, got a file of that name; choose another"
        )
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock(folder):
            _try_to_write(folder, megabytes * 10**6)
            yield
    finally:
        with contextlib.suppress(OSError):
            for path in made:  # from the innermost outwards, as long as they are empty
                path.rmdir()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Locks a folder. The system forgets the lock with the process, so none is ever stale."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, PermissionError):
        # Windows has no such locks; and `_try_to_write` says that the folder can't be written.
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # else the file system has no locks
            os.close(handle)
            raise ValueError(
                f"{folder} must be used by one minilpo at a time, but another one is at work "
                "there; wait until it has ended, or choose another folder"
            ) from None
    try:
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


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Makes a folder for this process alone, and removes it in the end.

    Before, it removes those of processes that were killed: nobody holds their locks any more.
    """
    if hasattr(os, "getuid"):  # Windows has no such locks
        for left in Path(tempfile.gettempdir()).glob("minilpo-*.locked"):
            with contextlib.suppress(OSError, ValueError):
                status = left.stat()  # a new one may be about to be locked
                if status.st_uid == os.getuid() and time.time() - status.st_mtime > 60:
                    with lock(left):
                        shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(".locked", "minilpo-"))
    try:
        with lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

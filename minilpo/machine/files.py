"""Reading and writing files: whole or not at all, none damaged is believed, none runs code.

What a run reads back is sealed: the file carries its own checksum, a checkpoint as the comment that
ends every zip archive, a JSON file as its last entry. A single wrong bit shows.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

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
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            handle = -1  # a file system without locks
        else:
            raise ValueError(
                f"{folder} must be used by one minilpo at a time, but another one is at work "
                "there; wait until it has ended, or choose another folder"
            ) from None
    try:
        yield
    finally:
        if handle >= 0:
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
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(
            f"{path} must be a file that minilpo wrote, got one of {path.stat().st_size:,} bytes; "
            f"{DAMAGED}"
        )
    return path.read_bytes()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    return _checksum(read_bytes(path))


# JSON


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in the order of the keys given, indented by two spaces."""
    write_bytes(path, (_dump(content) + "\n").encode())


def write_sealed_json(path: Path, content: dict[str, Any]) -> None:
    """`write_json` for what a run reads back: the last entry is the checksum of the others."""
    write_json(path, {**content, "sha256": _checksum(_dump(content).encode())})


def read_sealed_json(path: Path, remedy: str = DAMAGED) -> dict[str, Any]:
    """Reads what `write_sealed_json` wrote.

    Args:
        path: the file.
        remedy: what to do if it is damaged.

    Raises:
        ValueError: if the file is damaged or was changed by hand.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.json"
    >>> write_sealed_json(path, {"a": 1})
    >>> read_sealed_json(path)
    {'a': 1}
    >>> _ = path.write_text(path.read_text().replace("1", "2", 1))
    >>> read_sealed_json(path)
    Traceback (most recent call last):
    ValueError: ... must be as minilpo wrote it, but its content doesn't fit its checksum ...
    """
    try:
        content = json.loads(read_bytes(path).decode("utf-8"), parse_constant=_no_constant)
        if not isinstance(content, dict):
            raise ValueError("it isn't a dictionary")
        seal = content.pop("sha256", None)
        if seal is None:
            raise ValueError(
                "it has no checksum: another version of minilpo wrote it, or something else"
            )
        if seal != _checksum(_dump(content).encode()):
            raise ValueError(
                "its content doesn't fit its checksum: it was damaged, or changed by hand"
            )
    except RecursionError:
        raise ValueError(
            f"{path} must be as minilpo wrote it, but its brackets never end; {remedy}"
        ) from None
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} must be as minilpo wrote it, but {error}; {remedy}") from None
    return content


def _dump(content: Any) -> str:
    return json.dumps(content, indent=2, allow_nan=False)


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


# Checkpoints


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


def load_tensors(path: Path, remedy: str = DAMAGED) -> dict[str, Any]:
    """Loads what `save_tensors` saved. Never runs code from the file.

    Args:
        path: the file.
        remedy: what to do if it is damaged.

    Raises:
        ValueError: if the file is damaged.
    """
    data = read_bytes(path)
    try:
        if data[-CHECKSUM:] != _checksum(data[:-CHECKSUM]).encode():
            raise ValueError(
                "its content doesn't fit its checksum: "
                "it was cut short, damaged or not made by minilpo"
            )
        content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        if not isinstance(content, dict):
            raise ValueError("it doesn't hold a dictionary")
        return content
    except Exception as error:  # a strange archive raises whatever its reader stumbled on
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} must be a checkpoint as minilpo wrote it, but it is damaged ({reason}); "
            f"{remedy}"
        ) from None


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Forms


def misfit(value: Any, form: Any, name: str = "it") -> str | None:
    """What is wrong with something that was read, or None if it has the form that was expected.

    Args:
        value: what was read.
        form: a type, for a value of that type (a float must be finite, a whole number will do for
            it); a tensor, for one of the same shape and type without NaN; a dictionary, for the
            same keys with values of these forms; a dictionary with a type as its only key, for any
            keys of that type; a list with one form, for a list of any length; a tuple of forms, for
            a list of as many.
        name: how to speak of the value.

    >>> misfit({"step": 3, "loss": float("nan")}, {"step": int, "loss": float})
    "it['loss'] must be a finite number, got nan"
    >>> misfit([torch.zeros(2), torch.zeros(3)], [torch.zeros(2)])
    'it[1] must be of shape (2,), got (3,)'
    """
    if isinstance(form, Tensor):
        return _tensor_misfit(value, form, name)
    if isinstance(form, dict):
        return _dictionary_misfit(value, form, name)
    if isinstance(form, (list, tuple)):
        return _list_misfit(value, form, name)
    if form is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = is_number and abs(value) < math.inf
        return None if fits else f"{name} must be a finite number, got {_short(value)}"
    fits = isinstance(value, form) and (form is bool or not isinstance(value, bool))
    return None if fits else f"{name} must be of type {form.__name__}, got {_short(value)}"


def _dictionary_misfit(value: Any, form: dict[Any, Any], name: str) -> str | None:
    if not isinstance(value, dict):
        return f"{name} must be a dictionary, got {_short(value)}"
    key = next(iter(form), None)
    if isinstance(key, type):
        odd = next((k for k in value if not isinstance(k, key)), None)
        form = dict.fromkeys(value, form[key])
    else:
        odd = next((k for k in [*form, *value] if k not in form or k not in value), None)
    if odd is not None:
        what = "unknown" if odd in value else "missing"
        return f"{name} must have other keys: {_short(odd)} is {what}"
    found = (misfit(value[k], part, f"{name}[{_short(k)}]") for k, part in form.items())
    return next((wrong for wrong in found if wrong), None)


def _list_misfit(value: Any, form: list[Any] | tuple[Any, ...], name: str) -> str | None:
    if not isinstance(value, list):
        return f"{name} must be a list, got {_short(value)}"
    if isinstance(form, tuple) and len(value) != len(form):
        return f"{name} must be a list of {len(form)}, got {len(value)}"
    forms = form if isinstance(form, tuple) else form * len(value)
    found = (misfit(part, forms[i], f"{name}[{i}]") for i, part in enumerate(value))
    return next((wrong for wrong in found if wrong), None)


def _tensor_misfit(value: Any, form: Tensor, name: str) -> str | None:
    if not isinstance(value, Tensor) or value.layout != form.layout or not value.is_contiguous():
        return f"{name} must be a tensor, got {_short(value)}"
    if value.shape != form.shape:
        return f"{name} must be of shape {tuple(form.shape)}, got {tuple(value.shape)}"
    if value.dtype != form.dtype:
        return f"{name} must be of type {form.dtype}, got {value.dtype}"
    is_finite = bool(value.isfinite().all())
    return None if is_finite else f"{name} must be finite everywhere, got NaN or infinity"


def _short(value: Any) -> str:
    """A value in a message, however large or strange it is."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."

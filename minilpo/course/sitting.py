"""The grader's side of an examinee: it is started, asked, and ended whatever it has become.

Nothing that comes from it is believed, nothing is waited for without end.
"""

import contextlib
import json
import os
import queue
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import IO, Any

import minilpo
from minilpo import exercises
from minilpo.course import walls
from minilpo.course.wire import NO_ANSWER, pack, receive, send, unpack
from minilpo.exercises.examination import Case
from minilpo.exercises.trial import UNSOLVED, Observation
from minilpo.machine.text import one_line

MEMORY = 4 * 2**30  # bytes, beside PyTorch's own
PROCESSES = 64
TO_START = 120.0  # seconds: importing PyTorch takes 2, on a slow disk 60
TO_END = 10  # seconds that the system may take to end a process
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
EXAMINEE = [sys.executable, "-m", "minilpo.course.examinee"]
# Elsewhere, some libraries that PyTorch uses don't survive a fork.
CAN_FORK = sys.platform == "linux" and hasattr(os, "pidfd_open")
NO_WALLS = (
    "a process of its own for each cell, with limits of time, but no walls around it; "
    "don't run code here of people whom you don't trust"
)


class UnavailableError(ValueError):
    """No process can be started, through no fault of the learner."""


class Exam:
    """Where examinees come from, and what this system puts around them.

    `isolation` says the latter in words. While it is open, other processes of the same user can't
    look into this one (Linux).
    """

    def __init__(self) -> None:
        self.has_walls, self.isolation = False, NO_WALLS
        self.orders: socket.socket | None = None  # to the nursery

    def __enter__(self) -> "Exam":
        with contextlib.ExitStack() as stack:
            self.folder = stack.enter_context(_folder())
            if CAN_FORK:
                walls.set_readable(False)
                stack.callback(walls.set_readable, True)
                self._open_nursery(stack)
                self._try_walls()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stack.close()

    def _open_nursery(self, stack: contextlib.ExitStack) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.callback(ours.close)
        with theirs, tempfile.TemporaryFile() as complaints:
            process = start([*EXAMINEE, "nursery"], self.folder, theirs, complaints)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout
            with process.stdout as said:
                _ready(said, complaints)
        self.orders = ours

    def _try_walls(self) -> None:
        """Whether the system allows a world of its own: it is tried."""
        self.has_walls = True
        try:
            with Sitting(self, TO_START) as sitting:
                self.has_walls = sitting.begin(exercises.ALL[0].name, "") == UNSOLVED
        except UnavailableError:
            self.has_walls = False
        if self.has_walls:
            self.isolation = f"each cell has {', '.join(sitting.built)}"


class Sitting:
    """One exercise cell in a process of its own, from its start to its end.

    Args:
        exam: where the process comes from.
        seconds: for all that the cell does, from its first line on.
    """

    def __init__(self, exam: Exam, seconds: float):
        self.exam, self.seconds = exam, seconds
        self.deadline = monotonic() + TO_START
        self.problem = ""  # the first one: nothing is asked after it
        self.built: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None  # if it is a child of ours
        self.handles: list[int] = []  # if it isn't: of the examinee and its warden
        self.asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.lock, self.has_ended = threading.Lock(), False

    def __enter__(self) -> "Sitting":
        with contextlib.ExitStack() as stack:
            self.folder = stack.enter_context(_folder())
            stack.callback(self.end)
            with self.lock:
                if self.has_ended:  # before it began: somebody has pressed Ctrl-C
                    raise UnavailableError("stopped")
                pipes = self._fork() if self.exam.orders else self._start()
            threading.Thread(target=self._talk, args=pipes, daemon=True).start()
            if self.exam.orders:
                self._know(self._ask(None))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stack.close()

    def begin(self, name: str, source: str) -> str:
        """Runs a cell; a problem in a line, or an empty one if it defines what it must."""
        self.deadline = monotonic() + self.seconds
        task: dict[str, Any] = {"name": name, "source": source, "folder": self.folder}
        task |= {"seconds": self.seconds, "memory": MEMORY}
        task["processes"] = PROCESSES if self.exam.has_walls else None
        reply = self._ask(task)
        return self.problem or _text(reply, "problem")

    def call(self, case: Case) -> Observation:
        """What came of calling the learner's function with an input."""
        reply = {} if self.problem else self._ask({"case": pack(case)})
        if self.problem:
            return Observation(problem=self.problem)
        try:
            value = unpack(reply.get("value"))
            return Observation(value, _text(reply, "problem"), _text(reply, "printed"))
        except ValueError as error:
            self.problem = str(error)
            return Observation(problem=self.problem)

    def end(self) -> None:
        """Ends the process and all that it has started, as far as the system can tell."""
        with self.lock:
            self.has_ended = True
            for handle in self.handles:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            for handle in self.handles:
                # Its world has ended when it has: whatever was started in it is gone before.
                ended = select.poll()
                ended.register(handle, select.POLLIN)
                ended.poll(1000 * TO_END)
                os.close(handle)
            self.handles = []
            if self.process is not None and self.process.poll() is None:
                if hasattr(os, "killpg"):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.kill()
                self.process.wait()
        self.told.put(EOFError())  # for whoever waits
        self.asked.put(None)

    # How it begins

    def _fork(self) -> tuple[IO[bytes], IO[bytes]]:
        """Asks the nursery for an examinee."""
        assert self.exam.orders
        order = json.dumps([self.exam.has_walls, self.folder]).encode()
        for_it, questions = os.pipe()
        answers, from_it = os.pipe()
        try:
            socket.send_fds(self.exam.orders, [order], [for_it, from_it])
        except OSError:
            raise UnavailableError("the process that starts all others has ended") from None
        finally:
            os.close(for_it)
            os.close(from_it)
        return os.fdopen(questions, "wb"), os.fdopen(answers, "rb")

    def _know(self, told: dict[str, Any]) -> None:
        """Takes hold of examinee and warden; it comes from the warden, before any cell is run."""
        if self.problem:
            raise UnavailableError(f"a process for it must start, but {self.problem}")
        self.built = told["built"]
        try:
            self.handles = [os.pidfd_open(told[name]) for name in ("warden", "process")]
        except OSError:
            raise UnavailableError("its process ended before it began") from None

    def _start(self) -> tuple[IO[bytes], IO[bytes]]:
        """Starts a process that imports PyTorch anew."""
        with tempfile.TemporaryFile() as complaints:
            self.process = start(EXAMINEE, self.folder, subprocess.PIPE, complaints)
            assert self.process.stdin and self.process.stdout
            _ready(self.process.stdout, complaints)
        return self.process.stdin, self.process.stdout

    # What is said to it and by it

    def _ask(self, message: dict[str, Any] | None) -> dict[str, Any]:
        """Sends a message, if there is one, and waits for the next that comes."""
        self.asked.put(message or {})
        try:
            told = self.told.get(timeout=max(self.deadline - monotonic(), 0.001))
        except queue.Empty:
            told = TimeoutError()
        if isinstance(told, dict) and "ended" not in told:
            return told
        if isinstance(told, TimeoutError):
            self.problem = f"it took longer than {self.seconds:g} seconds in all and was stopped"
        elif isinstance(told, ValueError):
            self.problem = str(told)
        else:
            self.problem = self._how_it_ended(told)
        self.end()
        return {}

    def _talk(self, questions: IO[bytes], answers: IO[bytes]) -> None:
        """Sends and receives, in a thread of its own: only this waits on the pipes.

        A process that got away could keep them open for ever.
        """
        try:
            with questions, answers:
                while (message := self.asked.get()) is not None:
                    if message:
                        with contextlib.suppress(OSError):  # then there is an end to be told
                            send(questions, message)
                    self.told.put(receive(answers))
        except (OSError, EOFError, ValueError) as error:
            self.told.put(error)

    def _how_it_ended(self, told: Any) -> str:
        """Why no more can come."""
        code = told.get("ended") if isinstance(told, dict) else None
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(timeout=1.0)
        if not isinstance(code, int):
            return "its process ended, or closed its line to the grader"
        if code < 0:
            names = {one.value: one.name for one in signal.Signals}
            return f"its process was ended by {names.get(-code, f'signal {-code}')}"
        return f"its process ended, with status {code}, instead of answering"


def start(
    command: list[str], folder: str, line: Any, complaints: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """Starts a process of ours, with nothing in its environment that might be secret."""
    package = str(Path(minilpo.__file__).parents[1])
    paths = [package, *map(os.path.abspath, filter(None, sys.path))]
    environment = {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        **dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP"), folder),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # so that a seed repeats everything
        "PYTHONUTF8": "1",
    }
    return subprocess.Popen(
        command,
        stdin=line,
        stdout=subprocess.PIPE,
        stderr=complaints,
        cwd=folder,
        env=environment,
        start_new_session=True,  # so that Ctrl-C reaches only us
    )


def _ready(said: IO[bytes], complaints: IO[bytes]) -> None:
    """Waits until a process has imported everything."""
    try:
        receive(said)
    except (EOFError, ValueError):
        complaints.seek(0)
        lines = complaints.read(100_000).decode(errors="replace").strip().splitlines()
        reason = one_line("".join(lines[-1:]), 200)
        raise UnavailableError(
            f"a process of Python must start, but it didn't ({reason}); try again with --jobs 1"
        ) from None


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A temporary folder, removed however strange it has become."""
    folder = os.path.realpath(tempfile.mkdtemp(prefix="minilpo-"))
    try:
        yield folder
    finally:
        with contextlib.suppress(RecursionError):  # folders a thousand deep
            shutil.rmtree(folder, ignore_errors=True)


def _text(reply: dict[str, Any], name: str) -> str:
    text = reply.get(name, "")
    return one_line(text) if isinstance(text, str) else NO_ANSWER

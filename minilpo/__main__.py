"""`minilpo` and `python -m minilpo`. Ctrl-C is answered from the first moment on, before anything heavy is imported."""

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line and ends the process with its status."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _leave)
    for handle in (0, 1, 2):  # a closed one would be taken by the next file that is opened, and then be written to
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    from minilpo.cli import main as run

    status = run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed: `run` has said what there was to say
            pass
    os._exit(status)  # at once: a late Ctrl-C would find nobody to answer it


def _leave(signal_number: int, frame: object) -> None:
    os.write(2, b"minilpo: interrupted\n")
    os._exit(128 + signal_number)


if __name__ == "__main__":
    main()

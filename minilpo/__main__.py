"""`minilpo` and `python -m minilpo`. Ctrl-C is answered at once, before any heavy import."""

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line and ends the process with its status."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _leave)
    # The next file that is opened would take the place of a closed stream, and be written to.
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    from minilpo.cli import main as run

    status = run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # closed: `run` has said what there was to say
    os._exit(status)  # at once: a late Ctrl-C would find nobody to answer it


def _leave(signal_number: int, frame: object) -> None:
    # Of several processes that torchrun has started, only the first one speaks.
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
        os.write(2, b"minilpo: interrupted\n")
    os._exit(128 + signal_number)


if __name__ == "__main__":
    main()

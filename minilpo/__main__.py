"""`minilpo` and `python -m minilpo`. Ctrl-C is answered at once, before any heavy import."""

import logging
import os
import sys
import threading
from typing import NoReturn

from minilpo.machine.signals import leave_when_told


def main() -> NoReturn:
    """Runs the command line and ends the process with its status."""
    leave_when_told()
    # The next file that is opened would take the place of a closed stream, and be written to.
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # closed by whoever started us
    sys.stderr = sys.stderr or open(os.devnull, "w")
    if not _can_start_threads():
        must = "this process must be allowed to start a thread per core, but it isn't"
        remedy = "raise the limit of processes (ulimit -u)"
        os.write(2, f"minilpo: error: {must}; {remedy}\n".encode())
        os._exit(2)
    # Its warnings about a folder for caches that can't be written help nobody here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from minilpo.cli import main as run

    status = run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # closed: `run` has said what there was to say
    os._exit(status)  # at once: a late Ctrl-C would find nobody to answer it


def _can_start_threads() -> bool:
    """Tries it now: the libraries that are imported later end in a traceback where they can't."""
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, daemon=True) for _ in range(os.cpu_count() or 1)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        return False
    finally:
        end.set()
    return True


if __name__ == "__main__":
    main()

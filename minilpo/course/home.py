"""The language model of the lessons: trained once, by the first lesson that needs it, and kept.

It lies in an ordinary run folder, so all commands can be used on it: `minilpo play --run DIR`.
"""

import os
import sys
from pathlib import Path

from minilpo.config import FORMAT, PretrainConfig, RunConfig
from minilpo.machine.threads import pick
from minilpo.run.begin import create_run
from minilpo.run.folder import Run
from minilpo.run.steps import pretrain_step, use_machine, work_in_run

TASKS = ("math", "instruct", "story", "constrained_story", "math_paths")
# With more and smaller steps than the demo, fewer demonstrations make it as good.
CONFIG = RunConfig(tasks=TASKS, pretrain=PretrainConfig(steps=3600, batch_size=20))


def home() -> Path:
    """Finds the folder in which lessons keep files: MINILPO_HOME, or the user's cache.

    >>> import os
    >>> os.environ["MINILPO_HOME"] = "elsewhere"
    >>> home()
    PosixPath('elsewhere')
    >>> del os.environ["MINILPO_HOME"]
    """
    if place := os.environ.get("MINILPO_HOME"):
        return Path(place).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "minilpo"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "minilpo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minilpo"


def run_folder() -> Path:
    """Names the run folder of the lessons; another version's folder is left alone."""
    return home() / f"lessons-{FORMAT}"


def trained_run() -> Run:
    """Opens the run folder with the language model of all lessons; trains it the first time.

    Training takes a minute or two and shows a progress bar. An interrupted training goes on with
    the next call.

    Returns:
        The run, with its pretraining done.

    Raises:
        ValueError: if the folder holds something else.
        OSError: if it can't be written.
    """
    path = run_folder()
    if (path / "model.pt").is_file():
        # A finished model is only read, so several lessons may use it at the same time. Threads are
        # chosen anew: the machine may be busy now.
        run = Run.open(path)
        if run.is_done("pretrain"):
            pick()
            return run
    path.parent.mkdir(parents=True, exist_ok=True)
    with work_in_run(path, CONFIG):
        run = create_run(path, CONFIG, compare=("model", "pretrain"))
        use_machine(run)
        pretrain_step(run)
    return run

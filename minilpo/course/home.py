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
# More and smaller steps than the demo: as good after fewer demonstrations, so sooner.
CONFIG = RunConfig(tasks=TASKS, pretrain=PretrainConfig(steps=3600, batch_size=20))


def home() -> Path:
    """The folder that lessons keep things in: MINILPO_HOME, or the user's folder for caches.

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


def trained_run() -> Run:
    """The run folder with the language model of all lessons; it is trained if it isn't there.

    Training takes a minute or two and shows a progress bar. If it is interrupted, the next call
    goes on with it.

    Raises:
        ValueError: if the folder holds something else.
        OSError: if it can't be written.
    """
    path = home() / f"lessons-{FORMAT}"  # another version's folder is left alone
    if (path / "model.pt").is_file():
        # Finished: several lessons may read it at the same time. Each computes with as many threads
        # as are fastest now, not then: the machine may be busy.
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

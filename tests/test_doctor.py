"""`minilpo doctor`: its findings on broken installations and odd machines, and on this one."""

import re
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minilpo import doctor
from minilpo.cli import main
from minilpo.config import FORMAT, ModelConfig
from minilpo.course.lessons import LESSONS
from minilpo.machine import threads


@pytest.fixture(autouse=True)
def sound(monkeypatch, tmp_path):
    """A machine on which all is well and quickly measured."""
    monkeypatch.setattr(threads, "fastest", lambda: (2, "2 threads"))
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(doctor, "step_seconds", lambda: doctor.STEP_SECONDS)
    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MINILPO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def findings(capsys) -> tuple[int, list[str]]:
    """The status of `minilpo doctor` and the lines that don't begin with "ok"."""
    status = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert all(re.match("(ok|look|wrong) ", line) and len(line) < 700 for line in lines)
    return status, [line for line in lines if not line.startswith("ok")]


def raises(error):
    def fail(*arguments, **options):
        raise error

    return fail


def installed(**packages):
    """The version of a package: another one for those named."""
    version = metadata.version
    return lambda name: packages.get(name) or version(name)


def test_on_a_sound_machine_all_is_ok_and_nothing_is_left_behind(capsys, tmp_path):
    assert findings(capsys) == (0, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "version, mark",
    [
        ("2.4.0+cpu", None),
        ("2.10.1", None),
        ("2.13.9", None),
        ("2.3.9", "wrong"),
        ("1.99", "wrong"),
        ("2.14.0", "look"),
        ("2.14.0rc1+cu124", "look"),
    ],
)
def test_a_version_is_compared_with_the_range_by_its_numbers(capsys, monkeypatch, version, mark):
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch<2.14,>=2.4", "x; extra == 'y'"])
    monkeypatch.setattr(metadata, "version", installed(torch=version))
    status, found = findings(capsys)
    assert (
        status == (mark == "wrong") and [line.split()[0] for line in found] == [mark][: len(found)]
    )
    assert all(version in line and 'pip install "torch<2.14,>=2.4"' in line for line in found)
    assert bool(found) == (mark is not None)


def not_installed(patch):
    for function in ("requires", "version"):
        patch.setattr(metadata, function, raises(metadata.PackageNotFoundError("numpy")))


def broken_packages(patch):
    patch.setattr(doctor.importlib, "import_module", raises(OSError("libgomp" + 900 * "x")))


def nowhere_to_write(patch):
    patch.setattr(doctor.tempfile, "TemporaryFile", raises(PermissionError("read-only")))


def torch_for_gpus(patch):
    patch.setattr(torch.version, "cuda", "12.4")
    patch.setattr(torch.cuda, "is_available", lambda: False)


def lessons_model_is_cut(patch):
    folder = Path("home") / f"lessons-{FORMAT}"
    folder.mkdir(parents=True)
    for name in ("model.pt", "config.json"):
        (folder / name).write_bytes(b"{")


def no_jupyter(patch):
    patch.setattr(doctor, "find_spec", lambda name: None if name == "jupyterlab" else name)


def no_kernel(patch):
    patch.setattr(doctor, "step_seconds", raises(RuntimeError("no kernel")))


def old_terminal(patch):
    out = SimpleNamespace(encoding="ascii", write=sys.stdout.write, flush=lambda: None)
    patch.setattr(sys, "stdout", out)


def variable(name, value):
    return lambda patch: patch.setenv(name, value)


@pytest.mark.parametrize(
    "spoil, status, said",
    [
        (not_installed, 1, "wrong +numpy can't be imported .*PackageNotFound.*; pip install"),
        (broken_packages, 1, r"wrong +torch can't .*libgomp.*; pip install .* --force-reinstall"),
        (
            nowhere_to_write,
            1,
            r"this folder can't .*read-only[^$]*of the lessons can't .*read-only",
        ),
        (torch_for_gpus, 0, "look .*built for GPUs .*pytorch.org/get-started"),
        (variable("OMP_NUM_THREADS", "many"), 0, "look .*from 1 to 4, got 'many'"),
        (variable("OMP_NUM_THREADS", "0"), 0, "look .*got '0'; set it so, or remove"),
        (variable("OMP_NUM_THREADS", "5"), 0, "look .*from 1 to 4, got '5'"),
        (
            no_jupyter,
            0,
            r"look .*, jupyterlab must be installed; pip install .minilpo\[tutorials\]",
        ),
        (lambda patch: Path("home").touch(), 1, "wrong .*of the lessons can't .*set MINILPO_HOME"),
        (variable("MINILPO_HOME", "~nobody-here/x"), 1, "wrong .*set MINILPO_HOME"),
        (
            lessons_model_is_cut,
            1,
            "wrong .*lessons' language model can't be read .*; rename .*home",
        ),
        (no_kernel, 1, "wrong .*times fails: RuntimeError: no kernel; install minilpo again"),
        (old_terminal, 0, "look .*encoding is ascii.*PYTHONUTF8=1"),
    ],
)
def test_a_trouble_is_found_with_its_remedy(capsys, monkeypatch, spoil, status, said):
    spoil(monkeypatch)
    got, found = findings(capsys)
    assert got == status and re.search(said, "\n".join(found)), found


def test_the_fastest_number_of_threads_is_used_unless_another_was_asked_for(capsys, monkeypatch):
    used = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    findings(capsys)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    findings(capsys)
    assert used == [2]


def test_times_of_demo_and_lessons_grow_with_the_time_of_a_step(capsys, monkeypatch):
    for ratio in (1, 10):
        monkeypatch.setattr(doctor, "step_seconds", lambda r=ratio: r * doctor.STEP_SECONDS)
        main(["doctor"])
    out = capsys.readouterr().out
    assert "minilpo demo: about 3 minutes" in out and "minilpo demo: about 34 minutes" in out
    assert all(out.count(f"lesson {lesson.number}, {lesson.title}: ") == 2 for lesson in LESSONS)


def test_training_steps_are_timed_without_the_first_ones(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "ModelConfig", partial(ModelConfig, n_layer=1, n_embd=8))
    seconds = iter([0.0, 80.0, 84.0])
    monkeypatch.setattr(doctor, "perf_counter", lambda: next(seconds))
    assert doctor.step_seconds() == 4.0 / 32


def test_without_any_package_there_are_findings_and_no_traceback(tmp_path):
    """As after `pip uninstall`: only Python's and minilpo's own modules can be imported."""
    code = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy", "tokenizers", "matplotlib", "tqdm"):
            raise ImportError(f"{name} is gone")
sys.meta_path.insert(0, Gone())
from minilpo.cli import main
import minilpo.doctor
assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)
sys.exit(main(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == ""
    wrong = [line for line in done.stdout.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 5 and all("is gone" in line and "pip install" in line for line in wrong)
    assert "this folder" in done.stdout

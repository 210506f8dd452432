"""`minilpo doctor`: what it finds on machines that are made up, and on this one."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minilpo import doctor
from minilpo.course.lessons import TRAINING
from minilpo.doctor import (
    DEMO_SECONDS,
    GB,
    MOST_STEPS,
    STEP_SECONDS,
    TIMING,
    WARM_UP,
    Finding,
    build_finding,
    expected_times,
    findings,
    fits,
    folder_finding,
    free_memory,
    guarded,
    in_words,
    line,
    matrix_product,
    memory_finding,
    output_finding,
    package_findings,
    python_finding,
    report,
    requirements,
    room_finding,
    step_seconds,
    threads_findings,
    threads_of_machine,
    tutorials_finding,
)
from minilpo.machine import threads

LESSONS = [SimpleNamespace(number=1, title="A model", seconds=60.0)]


def no_package(name):
    raise metadata.PackageNotFoundError(name)


def raises(error):
    """A function that raises, whatever it is given."""

    def fail(*arguments, **options):
        raise error

    return fail


def of_torch(version, load=lambda name: None, needed="torch<2.14,>=2.4"):
    [finding] = package_findings([needed], lambda name: version, load)
    return finding


MADE_UP = [
    (python_finding((3, 10, 0)), "ok", "3.10.0", ""),
    (python_finding((3, 9, 18)), "wrong", "3.10 or later, got 3.9.18", "new environment"),
    (of_torch("2.4.0+cpu"), "ok", "torch 2.4.0+cpu", ""),
    (
        of_torch("2.3.1"),
        "wrong",
        "torch must be >=2.4, got 2.3.1",
        'pip install "torch<2.14,>=2.4"',
    ),
    (of_torch("2.14.0"), "look", "newer than what minilpo was tested with", "pip install"),
    (of_torch("2.5.0", raises(OSError("libgomp: no such file"))), "wrong", "libgomp", "--force"),
    (of_torch("2.5.0", raises(ImportError("half gone"))), "wrong", "half gone", "--force"),
    (
        next(package_findings(["numpy>=1.26"], no_package, print)),
        "wrong",
        "numpy isn't",
        '"numpy>=',
    ),
    (build_finding(None, False, 0), "ok", "CPU build", ""),
    (build_finding("12.4", True, 0), "ok", "GPU", ""),
    (build_finding("12.4", False, 4_600_000_000), "look", "4.6 GB", "pytorch.org/get-started"),
    (next(threads_findings(None, 1, {1: 1.0})), "ok", "1 core usable", ""),
    (next(threads_findings("2", 4, {1: 1.0})), "ok", "asks for 2", ""),
    (next(threads_findings("many", 4, {1: 1.0})), "look", "got 'many'", "remove it"),
    (next(threads_findings("0", 4, {1: 1.0})), "look", "got '0'", "remove it"),
    (next(threads_findings("8", 4, {1: 1.0})), "look", "asks for 8", "set it to 4"),
    (room_finding("here", 5 * GB), "ok", "5.0 GB", ""),
    (room_finding("here", GB // 2), "look", "0.5 GB", "free some space"),
    (room_finding("here", GB // 100), "wrong", "0.0 GB", "free some space"),
    (
        folder_finding("here", raises(FileNotFoundError("gone")), "go away"),
        "wrong",
        "gone",
        "go away",
    ),
    (memory_finding(None), "ok", "doesn't say", ""),
    (memory_finding(2 * GB), "ok", "2.0 GB", ""),
    (memory_finding(GB // 2), "look", "0.5 GB", "close other programs"),
    (tutorials_finding(lambda name: True), "ok", "jupyterlab and ipykernel", ""),
    (tutorials_finding(lambda name: name == "ipykernel"), "look", "jupyterlab must", "[tutorials]"),
    (output_finding("utf-8"), "ok", "utf-8", ""),
    (output_finding(None), "ok", "closed", ""),
    (output_finding("ascii"), "look", "ascii", "PYTHONUTF8=1"),
    (output_finding("no such encoding"), "look", "no such encoding", "PYTHONUTF8=1"),
]


@pytest.mark.parametrize("finding, mark, what, remedy", MADE_UP)
def test_what_is_found_is_marked_said_and_remedied(finding, mark, what, remedy):
    assert finding.mark == mark and what in finding.what and remedy in finding.remedy
    assert bool(finding.remedy) == (mark != "ok")
    assert line(finding).startswith(mark) and "\n" not in line(finding)


@pytest.mark.parametrize(
    "version, limit, fit",
    [
        ("2.10.0", ">=2.4", True),
        ("2.4", ">=2.4.0", True),
        ("2.3.9", ">=2.4", False),
        ("2.13.9", "<2.14", True),
        ("2.14.0", "<2.14", False),
        ("2.14.0rc1+cu124", "<2.14", False),
        ("1.0", "==1.0.0", True),
        ("1.1", "!=1.1", False),
        ("1.1", ">1.1", False),
        ("1.1", "<=1.1", True),
        ("unknown", ">=1", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version, limit, fit):
    assert fits(version, limit) == fit


def test_the_requirements_are_those_of_the_installation_without_its_extras(monkeypatch):
    told = ["torch<2.14,>=2.4", "pytest>=8; extra == 'test'"]
    monkeypatch.setattr(metadata, "requires", lambda name: told)
    assert requirements() == ["torch<2.14,>=2.4"]
    monkeypatch.setattr(metadata, "requires", no_package)
    assert "torch" in requirements() and "numpy" in requirements()


def test_every_package_of_a_broken_installation_has_a_line_of_its_own():
    needed = ["numpy>=1.26", "torch<2.14,>=2.4", "tqdm>=4.62"]
    found = list(package_findings(needed, lambda name: "9.9", raises(RuntimeError("x" * 900))))
    assert [finding.mark for finding in found] == ["wrong"] * 3
    assert all(len(line(finding)) < 700 for finding in found)


def test_a_look_that_needs_pytorch_is_left_out_without_it_and_said_if_it_breaks():
    assert list(guarded(raises(ImportError("no torch")))) == []
    [finding] = guarded(raises(RuntimeError("a bad library")))
    assert finding.mark == "wrong" and "a bad library" in finding.what and finding.remedy


def test_a_folder_that_is_not_there_yet_counts_as_the_nearest_above_it(tmp_path):
    finding = folder_finding("the cache", lambda: tmp_path / "not" / "yet", "go away")
    assert finding.mark in ("ok", "look") and str(tmp_path) in finding.what
    assert "not" not in Path(finding.what.split("(")[1].split(")")[0]).parts
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_a_file_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", raises(PermissionError("read-only")))
    finding = folder_finding("here", lambda: tmp_path, "go to another folder")
    assert (finding.mark, finding.remedy) == ("wrong", "go to another folder")


def test_a_folder_of_the_lessons_that_refuses_a_file_stops_nothing_but_the_lessons(
    tmp_path, monkeypatch
):
    def refuse(dir):
        if dir.name == "cache":
            raise PermissionError("read-only")
        return make(dir=dir)

    make = doctor.tempfile.TemporaryFile
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    (tmp_path / "cache").mkdir()
    found = [finding for finding in findings(tmp_path / "cache") if "read-only" in finding.what]
    assert [finding.mark for finding in found] == ["look"] and "MINILPO_HOME" in found[0].remedy


def test_free_memory_is_read_where_the_system_tells_it_and_else_unknown(tmp_path):
    told = tmp_path / "meminfo"
    assert free_memory(told) is None
    told.write_text("MemTotal:  9000 kB\nMemAvailable:    2000 kB\n")
    assert free_memory(told) == 2000 * 1024
    told.write_text("MemTotal:  9000 kB\n")
    assert free_memory(told) is None


@pytest.mark.parametrize("asked, in_use", [(None, 2), ("1", 1)])
def test_the_fastest_number_of_threads_is_used_unless_another_was_asked_for(
    monkeypatch, asked, in_use
):
    used = [1]
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(threads, "measure", lambda candidates: {1: 2.0, 2: 1.0})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    found = list(threads_of_machine())
    assert used[-1] == in_use and "2.0 times as fast" in found[-1].what


# Times


class Ticks:
    """A clock that moves on by the same number of seconds whenever it is asked."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def test_a_product_of_matrices_is_timed():
    [finding] = matrix_product(Ticks(0.002), size=8)
    assert "takes 2.0 ms" in finding.what


def test_training_steps_are_timed_and_end_soon_on_a_slow_machine():
    fast, slow = Ticks(0.01), Ticks(5.0)
    assert step_seconds(fast) == pytest.approx(0.01)
    assert fast.now == pytest.approx(0.01 * (WARM_UP + MOST_STEPS + 1))
    assert step_seconds(slow) == pytest.approx(5.0) and slow.now <= 3 * 5.0 and TIMING < 5.0


def test_expected_times_grow_with_the_time_of_a_step():
    for ratio, lesson in ((1, "60 seconds"), (10, "10 minutes")):
        lines = expected_times(ratio * STEP_SECONDS, LESSONS)
        assert lines[0] == f"minilpo demo: {in_words(ratio * DEMO_SECONDS)}"
        assert lines[1].endswith(f"once: {in_words(ratio * TRAINING)}")
        assert lines[-1] == f"lesson 1, A model: about {lesson}"
    assert len(expected_times(STEP_SECONDS, [])) == 1


# The whole report


def lines_of(monkeypatch, found, step=lambda: STEP_SECONDS):
    monkeypatch.setattr(doctor, "findings", lambda cache: iter(found))
    monkeypatch.setattr(doctor, "step_seconds", step)
    lines = []
    return report(LESSONS, None, lines.append), lines


def test_the_status_is_0_if_minilpo_works_and_the_times_are_called_estimates(monkeypatch):
    found = [Finding("ok", "Python"), Finding("look", "little memory", "close programs")]
    status, lines = lines_of(monkeypatch, found)
    assert status == 0 and lines[1] == "look   little memory; close programs"
    assert "Estimates" in "".join(lines) and lines[-1] == "  lesson 1, A model: about 60 seconds"


def test_the_status_is_1_if_something_is_wrong_and_then_nothing_is_timed(monkeypatch):
    found = [Finding("wrong", "no torch", "pip install torch"), Finding("ok", "Python")]
    status, lines = lines_of(monkeypatch, found, raises(AssertionError("timed")))
    assert status == 1 and lines[1].startswith("ok") and "timed" not in "".join(lines)


def test_training_steps_that_fail_are_a_finding(monkeypatch):
    status, lines = lines_of(monkeypatch, [], raises(RuntimeError("no kernel")))
    assert status == 1 and lines[0].startswith("wrong") and "no kernel" in lines[0]


def test_nothing_is_wrong_where_these_tests_run_and_every_remedy_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(findings(tmp_path / "cache"))
    assert {finding.mark for finding in found} <= {"ok", "look"} and len(found) >= 14
    assert all(bool(finding.remedy) == (finding.mark == "look") for finding in found)
    assert list(tmp_path.iterdir()) == []


def test_without_any_package_there_are_findings_and_no_traceback(tmp_path):
    """As after `pip uninstall`: whatever isn't Python's or minilpo's own can't be imported."""
    code = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy", "tokenizers", "matplotlib", "tqdm"):
            raise ImportError(f"{name} is gone")
sys.meta_path.insert(0, Gone())
from minilpo.doctor import of_the_course, report
sys.exit(report(*of_the_course()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr == ""
    wrong = [line for line in done.stdout.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 5 and all("is gone" in line and "pip install" in line for line in wrong)


def test_importing_it_imports_nothing_heavy():
    code = (
        "import minilpo.doctor, sys; assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

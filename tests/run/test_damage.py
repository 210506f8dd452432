"""Nothing damaged is believed: every file that a run reads may be broken in any way, and one line
names it and says what to do.
"""

import contextlib
import io
import json
import os
import random
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from minilpo.cli import main
from minilpo.machine.files import json_bytes, tensor_bytes, tensors_of
from tests.outside import BAR, TINY, fails, files_of, forge, interrupt_after, run_of

SETTINGS = "--tasks coin_flip hidden_wish --steps 60 --demonstrations 1500 --rounds 2".split()
SETTINGS += "--prompts 16 --n-hidden 4".split()
PROMPT = "Mia flips a coin at noon in the cave. Heads or tails?"
READ_BY = {  # every file that a run reads, and a command that reads it
    "record.json": ["sample", PROMPT],
    "config.json": ["sample", PROMPT],
    "tokenizer.json": ["sample", PROMPT],
    "model.pt": ["sample", PROMPT],
    "pretrain_log.json": ["sample", PROMPT],
    "head.pt": ["sample", PROMPT],
    "constant_head.pt": ["evaluate"],
    "lpo_log.json": ["sample", PROMPT],
    "lpo_state.pt": ["train"],
    "pretrain_state.pt": ["pretrain"],
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minilpo.show.plots.png", lambda fig: b"a figure")
        patch.setattr("minilpo.show.plots.panels", lambda fig, whole: [whole] * len(fig.axes))
        patch.setattr("minilpo.show.plots.panels", lambda fig, whole: [whole] * len(fig.axes))
        patch.setattr("minilpo.lm.pretraining.LOG_EVERY", 20)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with an unfinished second training."""
    folder = run_of(tmp_path_factory.mktemp("whole") / "run", *SETTINGS)
    interrupt_after("lpo_state.pt", ["train", "--run", str(folder), "--beta", "0.5"])
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that was interrupted while its language model learned."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    interrupt_after("pretrain_state.pt", ["demo", "--out", str(folder), *TINY, *SETTINGS])
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def attempt(folder: Path, command: list[str]) -> tuple[int, str]:
    """Runs a command in a folder in this process; returns the status and what was said on stderr,
    bars aside.
    """
    name, *more = command
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([name, "--run", str(folder), *more])
    lines = [
        line
        for line in re.split(r"[\n\r]", err.getvalue())
        if line.strip() and not BAR.search(line)
    ]
    return status, "\n".join(lines)


def is_refusal(status: int, said: str, name: str) -> bool:
    """One line that names the file; nobody is told to delete a file that may be whole."""
    return status == 2 and "\n" not in said and name in said and "delete" not in said


def damaged_bytes(data: bytes, rng: random.Random):
    """A file as a bad disk, a bad stick, an interrupted download or a hand leaves it."""
    for _ in range(100):
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        flipped = bytes([data[place] ^ 1 << bit])
        yield f"bit {bit} of byte {place}", data[:place] + flipped + data[place + 1 :]
    for _ in range(20):
        cut = rng.randrange(len(data))
        hole = rng.randrange(1, len(data) - cut + 1)
        yield f"cut at {cut}", data[:cut]
        yield f"zeros from {cut}", data[:cut] + bytes(hole) + data[cut + hole :]
        yield f"noise at {cut}", data[:cut] + rng.randbytes(hole) + data[cut + hole :]
    yield "empty", b""
    yield "doubled", data + data
    yield "noise", rng.randbytes(2000)
    for text in ("hello", "[" * 100_000, "[]", "{}", "7", "null", '{"a": NaN}'):
        yield text[:9], text.encode()
    if digit := re.search(rb"[1-9]", data):  # as by an editor
        yield "a digit", data[: digit.start()] + b"8888" + data[digit.end() :]


@pytest.mark.parametrize("name", READ_BY)
def test_no_damaged_file_is_believed(whole, begun, tmp_path, name):
    source = begun if name == "pretrain_state.pt" else whole
    folder = Path(shutil.copytree(source, tmp_path / "run"))
    sound, tried, believed = (folder / name).read_bytes(), 0, []
    for what, data in damaged_bytes(sound, random.Random(name)):
        if data == sound or (name == "record.json" and same_json(data, sound)):
            continue
        (folder / name).write_bytes(data)
        status, said = attempt(folder, READ_BY[name])
        tried += 1
        if not is_refusal(status, said, name):
            believed.append((what, status, said[:300]))
        (folder / name).write_bytes(sound)
    assert tried > 140 and not believed, (tried, believed[:3])


def same_json(data: bytes, other: bytes) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(data) == json.loads(other)
    return False


@pytest.mark.parametrize("name", [name for name in READ_BY if name != "pretrain_state.pt"])
def test_a_file_of_another_run_is_refused(whole, tmp_path, name):
    """All but its weights are the same: it differs in the seed."""
    other = run_of(tmp_path / "other", *SETTINGS, "--seed", "1", "--beta", "0.5")
    if name == "lpo_state.pt":
        interrupt_after(name, ["train", "--run", str(other), "--beta", "0.25"])
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    if (other / name).read_bytes() == (folder / name).read_bytes():
        pytest.skip("the same in both")
    shutil.copy(other / name, folder / name)
    assert is_refusal(*attempt(folder, READ_BY[name]), "record.json"), name


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda content: {**content, "format": 4}),
        ("config.json", lambda content: {**content, "more": 1}),
        ("config.json", lambda content: {**content, "seed": "x"}),
        ("config.json", lambda content: {**content, "lpo": []}),
        ("config.json", lambda content: {**content, "tasks": ["math", "of_another_version"]}),
        ("tokenizer.json", lambda content: {}),
        ("model.pt", lambda content: {**content, "norm.weight": torch.zeros(1)}),
        ("head.pt", lambda content: {**content, "more": torch.zeros(1)}),
        ("head.pt", lambda content: [content]),
    ],
)
def test_a_strangers_file_that_fits_the_record_but_not_this_version_is_one_line(run, name, change):
    read, write = (json.loads, json_bytes) if name.endswith(".json") else (tensors_of, tensor_bytes)
    forge(run, name, write(change(read((run / name).read_bytes()))))
    before = files_of(run)
    status, said = attempt(run, ["evaluate"])
    assert status == 2 and "\n" not in said and "delete" not in said and len(said) < 700
    assert files_of(run) == before


@pytest.mark.parametrize("place", ["gone", "steps"])
def test_a_strangers_record_that_names_files_elsewhere_removes_none(run, tmp_path, place):
    (tmp_path / "mine").write_text("mine")
    (run / "link").symlink_to(tmp_path)
    for name in ("../mine", "link/mine", str(tmp_path / "mine")):
        step = {"steps": {"train": {"settings": {}, "files": {name: "0"}}}}
        forge(run, "config.json", b"", **({"gone": [name]} if place == "gone" else step))
        assert is_refusal(*attempt(run, ["evaluate"]), "record.json")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_folder_of_another_version_is_said_to_be_one(run, capsys):
    """Such a folder has no record."""
    (run / "record.json").unlink()
    before = files_of(run)
    for command in (["evaluate", "--run", run], ["demo", "--out", run, *TINY, *SETTINGS]):
        assert "another version of minilpo" in fails(capsys, *command)
    assert files_of(run) == before


# The remedy of every message works


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "model.pt", "pretrain_log.json", "head.pt", "lpo_log.json"]
)
def test_the_command_that_a_message_advises_mends_the_run(whole, tmp_path, name, how):
    folder = run_of(tmp_path / "run", *SETTINGS)
    before = files_of(folder)
    if how == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    status, said = attempt(folder, READ_BY[name])
    assert status == 2 and name in said
    assert main(shlex.split(re.search(r"run: (minilpo .*)$", said)[1])[1:]) == 0
    assert main(["evaluate", "--run", str(folder)]) == 0
    assert files_of(folder) == before


def test_half_done_work_that_is_put_aside_is_begun_anew(run):
    (run / "lpo_state.pt").write_bytes(b"damaged")
    status, said = attempt(run, ["train"])
    assert status == 2 and "rename it to begin this step anew" in said
    (run / "lpo_state.pt").rename(run / "put_aside")
    assert attempt(run, ["train"])[0] == 0
    assert json.loads((run / "config.json").read_text())["lpo"]["beta"] == 1.0


# A stranger's run folder


def test_no_word_of_a_run_reaches_the_terminal_as_a_command(run, capsys, monkeypatch):
    text = (run / "tokenizer.json").read_text()
    for word in (" heads", " It", " is"):  # of its responses
        text = text.replace(json.dumps(word), json.dumps(word + "\x1b[2J\x07\u202e"))
    forge(run, "tokenizer.json", text.encode())
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda answer=is_terminal: answer)
        for prompt in (PROMPT, "Mia flips a coin"):
            main(["sample", "--run", str(run), prompt])
    main(["evaluate", "--run", str(run)])
    shown = "".join(capsys.readouterr())
    examples = (run / "examples.txt").read_text()
    assert "\\x1b[2J" in shown and "\\x1b[2J" in examples
    assert not re.search(r"\x1b\[2J|\x07|\u202e", shown + examples)


@pytest.mark.parametrize("name", ["\x1b[2J.py", "$(touch ran).py", "a b;c.py", "'.py", "x\ny.py"])
def test_the_name_of_a_task_file_is_quoted_for_the_shell(run, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = json.loads((run / "config.json").read_text())
    changed = {**config, "tasks": ["coin_flip", name], "digests": {name: "0"}}
    forge(run, "config.json", json_bytes(changed))
    said = fails(capsys, "evaluate", "--run", run)
    assert "\x1b" not in said
    if name.isprintable():
        named = shlex.split(said.split("add --tasks ")[1])
        assert named == ["coin_flip", name]
    assert not (tmp_path / "ran").exists()


def test_a_message_is_never_longer_than_a_few_lines_whatever_was_typed(run, capsys):
    long = "x" * 50_000
    for arguments in (
        ["sample", "--run", run, long],
        ["sample", "--run", run, "word " * 20_000],
        ["sample", "--run", long, PROMPT],
        ["demo", "--steps", long],
        ["demo", "--" + long],
        [long],
        ["demo", "--tasks", long],
        ["demo", "--temperatures", *map(str, range(20_000))],
        ["demo", "--seed", "9" * 4000],
        ["demo", "--out", long],
    ):
        assert len(fails(capsys, *arguments)) < 800


# Where `sample --html` may write


def test_a_page_never_replaces_what_is_no_page_nor_the_runs_own_files(run, tmp_path, capsys):
    before = files_of(run)
    link, target, inside = (tmp_path / name for name in ("link.html", "target.html", "inside.html"))
    target.write_text("old")
    link.symlink_to(target)
    inside.symlink_to(run / "model.pt")
    own = [run / name for name in ("model.pt", "figures/win_rate.png", "new", "report.html")]
    for page in (*own, inside, os.devnull, tmp_path):
        assert "must name a page" in fails(capsys, "sample", "--run", run, PROMPT, "--html", page)
    assert files_of(run) == before
    assert "removed or renamed" in fails(
        capsys, "sample", "--run", run, PROMPT, "--html", tmp_path / "no" / "page.html"
    )
    assert main(["sample", "--run", str(run), PROMPT, "--html", str(link)]) == 0
    assert link.is_symlink() and "<html" in target.read_text()


def test_links_in_a_strangers_run_folder_are_not_written_through(run, tmp_path):
    names = [".trial.partial", ".config.json.partial", ".metrics.json.partial"]
    names += [".record.json.partial", "metrics.json", "examples.txt"]
    for name in names:
        mine = tmp_path / f"mine {name}"
        mine.write_bytes(b"mine")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(mine)
    before = files_of(tmp_path)
    assert main(["evaluate", "--run", str(run), "--test-prompts", "6"]) == 0
    after = files_of(tmp_path)
    assert all(after[name] == data for name, data in before.items() if name.startswith("mine "))


@pytest.mark.skipif(os.name != "posix", reason="permissions of this kind are POSIX's")
def test_a_page_gets_the_permissions_that_the_umask_gives_or_that_the_old_one_had(run, tmp_path):
    old, new = tmp_path / "old.html", tmp_path / "new.html"
    old.touch(0o604)
    old.chmod(0o604)
    before = os.umask(0o027)
    try:
        for page in (old, new):
            assert main(["sample", "--run", str(run), PROMPT, "--html", str(page)]) == 0
    finally:
        os.umask(before)
    assert (old.stat().st_mode & 0o777, new.stat().st_mode & 0o777) == (0o604, 0o640)

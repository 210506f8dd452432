"""Nothing damaged is believed: every file that a run reads may be broken in any way, and one line
says so and what to do.
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
from minilpo.machine.files import (
    digest_of,
    load_tensors,
    read_sealed_json,
    save_tensors,
    write_sealed_json,
)
from minilpo.run.folder import STEPS, Run
from tests.outside import BAR, TINY, fails, files_of, interrupt_after, run_of

SETTINGS = "--tasks coin_flip hidden_wish --steps 60 --demonstrations 1500 --rounds 2 --prompts 16 --n-hidden 4".split()
PROMPT = "Mia flips a coin at noon in the cave. Heads or tails?"
READ_BY = {  # every file that a run reads, and a command that reads it
    "config.json": ["sample", PROMPT],
    "tokenizer.json": ["sample", PROMPT],
    "model.pt": ["sample", PROMPT],
    "pretrain_log.json": ["sample", PROMPT],
    "head.pt": ["sample", PROMPT],
    "constant_head.pt": ["evaluate"],
    "lpo_log.json": ["sample", PROMPT],
    "timings.json": ["evaluate"],
    "lpo_state.pt": ["train"],
    "pretrain_state.pt": ["pretrain"],
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "matplotlib.figure.Figure.savefig", lambda self, file, **_: file.write(b"a figure")
        )
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


class Audit:
    """Damages one file again and again and counts what isn't refused with one line that names it."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name, self.path = folder, name, folder / name
        self.sound, self.tried, self.believed = self.path.read_bytes(), 0, []

    def refuses(self, what: str) -> None:
        status, said = attempt(self.folder, READ_BY[self.name])
        self.tried += 1
        if status != 2 or "\n" in said or self.name not in said or len(said) > 700:
            self.believed.append((what, status, said[:300]))
        self.path.write_bytes(self.sound)


def damaged_bytes(data: bytes, rng: random.Random, n_flips: int):
    """A file as a bad disk, a bad stick or an interrupted download leaves it."""
    for _ in range(n_flips):
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        yield (
            f"bit {bit} of byte {place}",
            data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :],
        )
    for _ in range(20):
        cut = rng.randrange(len(data))
        yield f"cut at {cut}", data[:cut]
        hole = rng.randrange(1, len(data) - cut + 1)
        yield f"zeros from {cut}", data[:cut] + bytes(hole) + data[cut + hole :]
        yield f"noise at {cut}", data[:cut] + rng.randbytes(hole) + data[cut + hole :]
    yield from [
        ("empty", b""),
        ("doubled", data + data),
        ("noise", rng.randbytes(2000)),
        ("text", b"hello"),
        ("zeros", bytes(999)),
    ]
    yield from [
        ("brackets", b"[" * 100_000),
        ("a list", b"[]"),
        ("a number", b"7"),
        ("null", b"null"),
        ("NaN", b'{"a": NaN}'),
    ]


@pytest.mark.parametrize("name", READ_BY)
def test_no_damaged_file_is_believed(whole, begun, tmp_path, name):
    folder = Path(
        shutil.copytree(begun if name == "pretrain_state.pt" else whole, tmp_path / "run")
    )
    audit, rng = Audit(folder, name), random.Random(name)
    for what, data in damaged_bytes(audit.sound, rng, 100):
        if data == audit.sound or _same_json(data, audit.sound):
            continue
        audit.path.write_bytes(data)
        audit.refuses(what)
    assert audit.tried > 140 and not audit.believed, (audit.tried, audit.believed[:3])


def _same_json(data: bytes, other: bytes) -> bool:
    """White space doesn't count: whoever looks at a file with an editor hasn't changed it."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(data) == json.loads(other)
    return False


# With a checksum that fits: what another version, or another person, may have written


def without(*keys: str):
    return lambda content: {key: value for key, value in content.items() if key not in keys}


def wider(name: str):
    """One more row in a tensor."""
    return lambda content: {**content, name: torch.cat([content[name], content[name][:1]])}


def with_(**values):
    return lambda content: {**content, **values}


STRANGE = [
    ("config.json", with_(format=4)),
    ("config.json", without("format")),
    ("config.json", without("seed")),
    ("config.json", with_(more=1)),
    ("config.json", with_(seed="x")),
    ("config.json", with_(lpo=[])),
    ("config.json", lambda content: {**content, "lpo": without("clip")(content["lpo"])}),
    ("config.json", lambda content: {**content, "model": with_(n_head=3)(content["model"])}),
    ("config.json", with_(tasks=["math", "of_another_version"])),
    ("pretrain_log.json", without("settings")),
    ("pretrain_log.json", with_(files=["model.pt"])),
    ("lpo_log.json", without("log")),
    ("lpo_log.json", with_(files={"../model.pt": "0"})),
    ("timings.json", without("lpo")),
    ("timings.json", with_(lpo="long")),
    ("model.pt", without("token_embedding.weight")),
    ("model.pt", wider("token_embedding.weight")),
    ("head.pt", wider("mlp.4.bias")),
    ("head.pt", with_(more=torch.zeros(1))),
    ("constant_head.pt", lambda content: {}),
    ("constant_head.pt", lambda content: [content]),
    ("lpo_state.pt", without("best")),
    ("lpo_state.pt", without("lpo")),
    ("lpo_state.pt", with_(lpo="{}}")),
    ("lpo_state.pt", with_(lpo='{"more": 1}')),
    ("lpo_state.pt", lambda content: {**content, "head": wider("mlp.4.bias")(content["head"])}),
    ("pretrain_state.pt", without("optimizer")),
    ("pretrain_state.pt", without("step")),
    ("pretrain_state.pt", with_(model=None)),
    ("pretrain_state.pt", lambda content: [content]),
]


@pytest.mark.parametrize("i", range(len(STRANGE)))
def test_what_fits_its_checksum_but_not_this_version_is_one_line_and_nothing_is_lost(
    whole, begun, tmp_path, i
):
    name, change = STRANGE[i]
    source = begun if name == "pretrain_state.pt" else whole
    folder = Path(shutil.copytree(source, tmp_path / "run"))
    audit = Audit(folder, name)
    if name.endswith(".pt"):
        save_tensors(audit.path, change(load_tensors(audit.path)))
        forge_logs(folder)
    else:
        write_sealed_json(audit.path, change(read_sealed_json(audit.path)))
    before = files_of(folder)
    status, said = attempt(folder, READ_BY[name])
    assert (
        status == 2 and "\n" not in said and f"{audit.path} must hold" in said and len(said) < 700
    )
    assert name == "timings.json" or "delete" not in said  # for the file may be whole
    assert files_of(folder) == before


def forge_logs(folder: Path) -> None:
    """Makes the logs of a run name the files and settings that are there now."""
    run = Run.open(folder)
    for name, step in STEPS.items():
        if (folder / step.log).exists():
            log = read_sealed_json(folder / step.log)
            files = {name: digest_of(folder / name) for name in log["files"]}
            settings = run.key_of_settings(name)
            write_sealed_json(folder / step.log, {**log, "files": files, "settings": settings})


def test_a_head_for_other_temperatures_and_a_file_of_another_run_are_refused(run, tmp_path, capsys):
    other = run_of(tmp_path / "other", *SETTINGS, "--temperatures", "0", "0.25", "1", "--seed", "1")
    for name in (
        "model.pt",
        "head.pt",
        "constant_head.pt",
        "tokenizer.json",
        "lpo_log.json",
        "pretrain_log.json",
    ):
        sound = (run / name).read_bytes()
        shutil.copy(other / name, run / name)
        capsys.readouterr()
        assert name in fails(capsys, "evaluate", "--run", run), name
        (run / name).write_bytes(sound)


# The remedy of every message works


def remedies_of(said: str, folder: Path) -> list[list[str]]:
    """Does what a message says and returns the command that it names."""
    if delete := re.search(r"delete (it|'[^']+'|\S+)", said):
        named = (
            re.search(r"(\S+) must (?:be|hold)", said)[1]
            if delete[1] == "it"
            else shlex.split(delete[1])[0]
        )
        Path(named.rstrip(",;")).unlink()
    command = re.search(r"run: (minilpo .*)$", said)
    return shlex.split(command[1])[1:] if command else []


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.parametrize(
    "name", [name for name in READ_BY if name not in ("config.json", "pretrain_state.pt")]
)
def test_what_a_message_advises_mends_the_run(run, whole, capsys, name, how):
    if name != "lpo_state.pt":
        (run / "lpo_state.pt").unlink()
    before = files_of(run)
    if how == "damaged":
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2] + b"x" + data[len(data) // 2 + 1 :])
    else:
        (run / name).unlink()
    status, said = attempt(run, READ_BY[name])
    if how == "missing" and name in ("timings.json", "lpo_state.pt"):
        assert status == 0  # nothing is lost with them but time
        return
    assert status == 2 and name in said
    for _ in range(3):  # mending a file may bring up the next one
        command = remedies_of(said, run)
        assert not command or main(command) == 0, (said, capsys.readouterr().err)
        status, said = attempt(run, READ_BY[name])
        if status == 0:
            break
    assert status == 0, said
    assert main(["evaluate", "--run", str(run)]) == 0
    if name != "lpo_state.pt":
        assert files_of(run) == before


def test_a_folder_without_settings_can_be_put_aside(run, capsys):
    (run / "config.json").unlink()
    said = fails(capsys, "evaluate", "--run", run)
    assert "config.json" in said
    said = fails(capsys, "pretrain", "--run", run)
    assert "choose another" in said


# A stranger's run folder


@pytest.fixture
def nasty(run):
    """A run whose words would be commands to a terminal."""
    text = (run / "tokenizer.json").read_text()
    for word in (" heads", " It", " is"):  # of its responses
        text = text.replace(json.dumps(word), json.dumps(word + "\x1b[2J\x07\u202e"))
    (run / "tokenizer.json").write_text(text)
    config = read_sealed_json(run / "config.json")
    config["digests"]["tokenizer.json"] = digest_of(run / "tokenizer.json")
    write_sealed_json(run / "config.json", config)
    forge_logs(run)
    return run


def test_no_word_of_a_run_reaches_the_terminal_as_a_command(nasty, capsys, monkeypatch):
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda answer=is_terminal: answer)
        for prompt in (PROMPT, "Mia flips a coin"):
            main(["sample", "--run", str(nasty), prompt])
    main(["evaluate", "--run", str(nasty)])
    shown = "".join(capsys.readouterr())
    examples = (nasty / "examples.txt").read_text()
    assert "\\x1b[2J" in shown and "\\x1b[2J" in examples
    assert not re.search(r"\x1b\[2J|\x07|\u202e", shown + examples)


@pytest.mark.parametrize("name", ["\x1b[2J.py", "$(touch ran).py", "a b;c.py", "'.py", "x\ny.py"])
def test_the_name_of_a_task_file_is_quoted_for_the_shell(run, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = read_sealed_json(run / "config.json")
    write_sealed_json(
        run / "config.json",
        {**config, "tasks": ["coin_flip", name], "digests": {**config["digests"], name: "0"}},
    )
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


def test_a_page_never_replaces_what_is_not_a_file_nor_the_runs_own_files(run, tmp_path, capsys):
    before = files_of(run)
    pipe, link, target = tmp_path / "pipe", tmp_path / "link.html", tmp_path / "target.html"
    target.write_text("old")
    link.symlink_to(target)
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
        assert "something else" in fails(capsys, "sample", "--run", run, PROMPT, "--html", pipe)
    assert "something else" in fails(capsys, "sample", "--run", run, PROMPT, "--html", os.devnull)
    assert "something else" in fails(capsys, "sample", "--run", run, PROMPT, "--html", tmp_path)
    for name in ("model.pt", "config.json", "figures/win_rate.png", "new"):
        assert "own files" in fails(capsys, "sample", "--run", run, PROMPT, "--html", run / name)
    inside = tmp_path / "inside"
    inside.symlink_to(run / "model.pt")
    assert "own files" in fails(capsys, "sample", "--run", run, PROMPT, "--html", inside)
    assert files_of(run) == before
    assert "removed or renamed" in fails(
        capsys, "sample", "--run", run, PROMPT, "--html", tmp_path / "no" / "page.html"
    )
    assert main(["sample", "--run", str(run), PROMPT, "--html", str(link)]) == 0
    assert link.is_symlink() and "<html" in target.read_text()


def test_links_in_a_strangers_run_folder_are_not_written_through(run, tmp_path):
    (run / "lpo_state.pt").unlink()
    names = [
        ".trial.partial",
        ".config.json.partial",
        ".metrics.json.partial",
        ".examples.txt.partial",
        ".timings.json.partial",
    ]
    names += ["metrics.json", "examples.txt", "timings.json"]
    for name in names:
        mine = tmp_path / f"mine {name}"
        mine.write_bytes((run / name).read_bytes() if name == "timings.json" else b"mine")
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

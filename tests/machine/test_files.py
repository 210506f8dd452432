"""Files are written whole or not at all, and opening one never runs code."""

import contextlib
import errno
import os
import pickle
import tempfile

import pytest
import torch

from minilpo.machine.files import Record, temporary_folder, tensor_bytes, tensors_of, write_bytes


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    write_bytes(tmp_path / "a", b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError):
        write_bytes(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_the_same_tensors_give_the_same_bytes_and_come_back():
    content = {"a": torch.arange(5.0), "b": {"c": [1, "x"]}}
    data = tensor_bytes(content)
    assert data == tensor_bytes(content)
    read = tensors_of(data)
    assert torch.equal(read["a"], content["a"]) and read["b"] == content["b"]


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for data in (tensor_bytes({"a": Evil()}), pickle.dumps(Evil())):
        with pytest.raises(ValueError, match="damaged"):
            tensors_of(data)
    assert not (tmp_path / "ran").exists()


def record_of(folder):
    return Record(folder, "")


def test_a_commit_that_is_interrupted_counts_wholly_or_not_at_all(tmp_path, monkeypatch):
    """Before the record is written nothing has changed; after it the new files count, even where
    they haven't taken their places yet.
    """
    old, new = {"a": b"old", "sub/b": b"old"}, {"a": b"new"}
    record_of(tmp_path).commit({"step": (1, old), "other": (1, {"c": b"c"})})
    for fails_at in range(1, 4):
        left, replace = [fails_at], os.replace

        def interrupted(*paths, left=left, replace=replace):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            replace(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted)
            with contextlib.suppress(KeyboardInterrupt):
                record_of(tmp_path).commit({"step": (2, new)}, undone=["other"])
        record = record_of(tmp_path)
        happened = record.settings_of("step") == 2
        assert happened == (fails_at > 1)
        assert record.read("a", "") == (b"new" if happened else b"old")
        record.settle()
        there = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
        assert there == {"record.json", "a", *([] if happened else ["sub/b", "c"])}
        record.commit({"step": (1, old), "other": (1, {"c": b"c"})})


def test_temporary_folders_of_killed_processes_go_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = {"minilpo-left.locked", "minilpo-other", "mine", "minilpo-new.locked"}
    for name in names:
        (tmp_path / name / "deep").mkdir(parents=True)
    os.utime(tmp_path / "minilpo-left.locked", (0, 0))  # a new one may be about to be locked
    with temporary_folder() as one, temporary_folder() as two:
        assert one != two and one.is_dir()  # it is in use
        assert not (tmp_path / "minilpo-left.locked").exists()
    assert {path.name for path in tmp_path.iterdir()} == names - {"minilpo-left.locked"}

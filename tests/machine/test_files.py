"""Files are written whole or not at all, and opening one never runs code."""

import errno
import os
import pickle

import pytest
import torch

from minilpo.machine.files import load_tensors, save_tensors, write_bytes


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    write_bytes(tmp_path / "a", b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError):
        write_bytes(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_the_same_tensors_give_the_same_bytes_under_any_name(tmp_path):
    content = {"a": torch.arange(5.0), "b": {"c": [1, "x"]}}
    save_tensors(tmp_path / "one.pt", content)
    save_tensors(tmp_path / "another.pt", content)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()
    assert torch.equal(load_tensors(tmp_path / "one.pt")["a"], content["a"])


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_checkpoint_that_is_cut_short_is_named_and_said_to_be(tmp_path, cut):
    save_tensors(tmp_path / "model.pt", {"a": torch.zeros(100)})
    data = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(data[:cut])
    with pytest.raises(ValueError, match=r"model\.pt must hold .*cut short"):
        load_tensors(tmp_path / "model.pt")


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"a": Evil()}, tmp_path / "model.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    save_tensors(
        tmp_path / "sealed.pt", {"a": Evil()}
    )  # whoever writes evil code can write its checksum too
    for name in ("model.pt", "plain.pt", "sealed.pt"):
        with pytest.raises(ValueError, match="damaged"):
            load_tensors(tmp_path / name)
    assert not (tmp_path / "ran").exists()

"""The bar goes on whoever reads it, or nobody."""

import io
import sys

import pytest

from minilpo.machine.progress import bar, say


class Gone(io.StringIO):
    """A terminal that was closed, or a full disk."""

    def write(self, *_):
        raise OSError(28, "No space left on device")

    flush = isatty = write


def test_a_bar_begins_where_the_work_was_interrupted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with bar("evaluating", "response", 4, 1) as progress:
        progress.update(3)
        say("a word")
    shown = sys.stderr.getvalue()
    assert "evaluating" in shown and "1/4" in shown and "4/4" in shown and "a word\n" in shown


@pytest.mark.parametrize("stream", [None, "closed", Gone()], ids=["none", "closed", "gone"])
@pytest.mark.parametrize("at", [0, 5])
def test_the_work_goes_on_when_nobody_can_read_its_bar(monkeypatch, stream, at):
    """From the start, or from halfway on."""
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for n in range(10):
        if n == at:
            monkeypatch.setattr(sys, "stderr", stream)
        if n == 0:
            progress = bar("pretraining", "step", 10)
            progress.mininterval = 0.0  # write at every step
        progress.update()
    progress.close()
    say("a word to nobody")
    assert progress.n == 10

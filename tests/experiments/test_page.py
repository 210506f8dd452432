"""`report.html` of a reproduction: what it says of experiments that went one way or the other."""

import pytest

from minilpo.config import RunConfig
from minilpo.experiments.base import Finding, Row
from minilpo.experiments.figures import described
from minilpo.experiments.page import reproduction_page
from minilpo.show import plots
from tests.browser import chromium, visit  # noqa: F401
from tests.experiments import PNG
from tests.show.test_page import Reader

OWN = "(not in the paper) something else"


def result(name, agrees, seeds=(0.25, 0.5), paper="what it shows", sentence="So it was.", png=PNG):
    rows = [Row(f"{name}: gain", list(seeds), "54.2"), Row(f"{name} <b>", list(seeds))]
    files = {"figure.png": png}
    return name, (paper, Finding(rows, agrees, f"{name}: {sentence}", files, f"Figure: {name}."))


def page_of(*results):
    return reproduction_page(RunConfig(), dict(results))


def test_every_experiment_has_the_papers_claim_its_sentence_its_table_and_its_figure():
    read = Reader(page_of(result("fig3", True), result("table1", False)))
    for name in ("fig3", "table1"):
        assert f"In the paper: what it shows. Here: {name}: So it was." in read.text
        assert f"{name}: gain0.375-1.213 to 1.96354.2" in read.text
    images = [attributes["alt"] for attributes in read.all("img")]
    assert images == ["Figure: fig3.", "Figure: table1."]
    assert "fig3 <b>" in read.text and "--n-embd" in read.text


@pytest.mark.parametrize("agrees, says", [(True, "fig3. Didn't: fig4"), (False, "none. Didn't: fig3, fig4")])  # fmt: skip
def test_what_did_not_come_out_is_said(agrees, says):
    text = Reader(page_of(result("fig3", agrees), result("fig4", False))).text
    assert f"Came out as the paper or the control says: {says}." in text


def test_a_single_seed_says_nothing_of_a_direction():
    text = Reader(page_of(result("fig3", False, seeds=[0.25]))).text
    assert "says: none. Didn't: none. Can't be told from a single seed: fig3." in text
    assert "0.250one seed" in text


def test_the_papers_experiments_come_first_in_whatever_order_they_are_given():
    some = [result("controls", True, paper=OWN), result("table1", True), result("fig3", True)]
    page = page_of(*some)
    assert page == page_of(*some[::-1])
    assert len(Reader(page).all("a")) == 4
    places = [page.index(f">{name}</h2>") for name in ("fig3", "table1", "controls")]
    assert places == sorted(places) and "About: (not in the paper)" in Reader(page).text


def test_a_figure_is_described_by_its_headings_and_axes():
    fig, [[left, right]] = plots.figure(1, 2)
    fig.suptitle("Both")
    left.set(title="Cold\nwins", xlabel="temperature", ylabel="reward")
    right.axis("off")
    assert described(fig).startswith("Figure: Both; Cold: wins (reward, by temperature). ")


def test_the_page_is_quiet_readable_and_never_too_wide(chromium, tmp_path):  # noqa: F811
    fig, _ = plots.figure(1, 3)
    long = "the direction doesn't agree everywhere " * 5
    path = tmp_path / "report.html"
    page = page_of(result("fig3", False, sentence=long, png=plots.png(fig)))
    path.write_text(page, encoding="utf-8")
    with visit(chromium, path.as_uri()) as opened:
        opened.assert_quiet(path.as_uri())
        assert opened.low_contrast() == [] and opened.too_wide() == []

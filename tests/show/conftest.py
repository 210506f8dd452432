"""Numbers of a run and its figures, which the tests of table, figures and page share."""

from types import SimpleNamespace

import pytest

from minilpo.decoding.choices import Temperatures
from minilpo.evaluation.summary import controls, summarize
from minilpo.show import plots
from minilpo.show.report import draw_figures, figure_files
from tests.evaluation.test_evaluation import FOUR_TEMPERATURES, random_measured

FOUR = Temperatures(FOUR_TEMPERATURES)
SECONDS = {"pretrain": 11.0, "rollout": 22.0, "lpo": 33.0, "evaluate": 44.0, "total": 110.0}
PRETRAIN_LOG = [
    {"step": step, "loss": 5.25 - step / 100, "held_out_loss": 5.5 - step / 100}
    for step in range(0, 400, 100)
]
LPO_LOG = [
    {
        **{"round": i, "sampled_reward": 0.4 + i / 16, "validation_reward": 0.45 + i / 16},
        "epochs": [{"margin": i / 8 + j / 4, "entropy": 1.75 - i / 4 - j / 8} for j in range(2)],
        **{"pairs": 7, "dropped_prompts": 2},
    }
    for i in (1, 2, 3)
]


@pytest.fixture(scope="session")
def metrics():
    selection, on_test = random_measured(0), random_measured(1)
    found = summarize(selection, on_test, FOUR, 200, 0)
    found["ood"] = summarize(selection, random_measured(2), FOUR, 200, 0)
    found["controls"] = controls(found["mean"], on_test, FOUR, 2, 200, 0)
    return found | {"temperatures": FOUR_TEMPERATURES, "seconds": SECONDS}


@pytest.fixture(scope="session")
def drawn(metrics):
    """The figures of the run by name, the pictures made of them, the files and the sentences."""
    figures, make = [], plots.figure

    def kept(*args, **kwargs):
        figures.append(make(*args, **kwargs))
        return figures[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "figure", kept)
        pictures = draw_figures(metrics, PRETRAIN_LOG, LPO_LOG)
    by_title = {fig.get_suptitle(): fig for fig, _ in figures}
    figures = {picture.name: by_title[picture.title] for picture in pictures}
    said = {picture.name: picture.sentences for picture in pictures}
    files = figure_files(pictures)
    return SimpleNamespace(figures=figures, pictures=pictures, files=files, said=said)

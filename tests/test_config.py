"""Settings check themselves, and survive a trip through JSON."""

import dataclasses
import json

import pytest

from minilpo.config import (
    FORMAT,
    EvaluationConfig,
    LPOConfig,
    ModelConfig,
    PretrainConfig,
    RunConfig,
)

SECTIONS = (ModelConfig, PretrainConfig, LPOConfig, EvaluationConfig)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: PretrainConfig(steps=0), "--steps must be at least 1, got 0"),
        (lambda: PretrainConfig(learning_rate=0.0), "--learning-rate must be above 0"),
        (lambda: PretrainConfig(learning_rate=float("nan")), "--learning-rate"),
        (lambda: LPOConfig(samples=1), "--samples must be at least 2"),
        (lambda: RunConfig(level="word"), "--level must be one of sequence, token"),
        (lambda: RunConfig(seed=-1), "--seed"),
        (lambda: RunConfig(temperatures=(0.0, -0.5)), "0 or above"),
        (lambda: RunConfig(temperatures=(0.5, 0.2)), "rising order.*try 0.2 0.5"),
        (lambda: RunConfig(temperatures=(0.2, 0.2)), "different"),
        (lambda: RunConfig(temperatures=(0.0, float("nan"))), "--temperatures"),
        (lambda: RunConfig(temperatures=(0.0, float("inf"))), "at most 100"),
        (lambda: RunConfig(temperatures=(1.0,)), "at least two"),
        (lambda: LPOConfig(loss="dpo"), "--loss must be one of default, eq9"),
        (lambda: LPOConfig(train_lm=True), "--train-lm must come with --loss eq9"),
        (
            lambda: RunConfig(level="token", lpo=LPOConfig(loss="eq11_marginal")),
            "--loss eq11_marginal must come with",
        ),
        (lambda: RunConfig.from_dict({"format": 999}), "another version"),
        (lambda: RunConfig.from_dict([]), "another version"),
        (lambda: RunConfig.from_dict({"format": FORMAT, "seed": 0}), "those of this version"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_the_name_of_its_flag(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_settings_survive_a_trip_through_json():
    config = RunConfig(
        seed=3,
        level="token",
        temperatures=(0.0, 0.7),
        tasks=("math",),
        pretrain=PretrainConfig(steps=7),
    )
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_no_two_sections_share_a_flag_and_every_flag_is_explained():
    fields = [
        field
        for section in (RunConfig, *SECTIONS)
        for field in dataclasses.fields(section)
        if "help" in field.metadata
    ]
    names = [field.name for field in fields]
    assert len(names) == len(set(names)) and all(field.metadata["help"] for field in fields)

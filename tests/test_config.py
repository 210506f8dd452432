"""Settings check themselves, and survive a trip through JSON."""

import dataclasses
import json
from argparse import Namespace

import pytest

from minilpo.config import RULES, SECTIONS, LPOConfig, PretrainConfig, RunConfig
from minilpo.flags import whole_config


def json_of(**changed):
    """Settings as a file holds them, with some changed, or left out for None."""
    content = {**RunConfig().to_dict(), **changed}
    return {name: value for name, value in content.items() if value is not None}


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: PretrainConfig(steps=0), "--steps must be from 1 to 10,000,000, got 0"),
        (
            lambda: PretrainConfig(learning_rate=0.0),
            "--learning-rate must be from 1e-09 to 1, got 0",
        ),
        (lambda: PretrainConfig(learning_rate=float("nan")), "--learning-rate"),
        (lambda: LPOConfig(samples=1), "--samples must be from 2"),
        (lambda: RunConfig(level="word"), "--level must be one of sequence, token"),
        (lambda: RunConfig(seed=-1), "--seed"),
        (lambda: RunConfig(temperatures=(0.0, -0.5)), "must be 0"),
        (
            lambda: RunConfig(temperatures=(0.5, 0.2)),
            "must rise by 0.001 or more, got 0.5 before 0.2",
        ),
        (lambda: RunConfig(temperatures=(0.2, 0.2)), "must rise"),
        (lambda: RunConfig(temperatures=(0.0, float("nan"))), "--temperatures"),
        (lambda: RunConfig(temperatures=(0.0, float("inf"))), "to 100"),
        (lambda: RunConfig(temperatures=(1.0,)), "from 2 to 100"),
        (lambda: LPOConfig(loss="dpo"), "--loss must be one of default, eq9"),
        (lambda: LPOConfig(train_lm=True), "--train-lm must come with --loss eq9"),
        (lambda: LPOConfig(rule="ppo"), "--rule must be one of lpo, reinforce, grpo, regression"),
        (
            lambda: LPOConfig(rule="grpo", pairs="gap"),
            "--pairs must come with --rule lpo, got --rule grpo with --pairs gap",
        ),
        (
            lambda: LPOConfig(rule="reinforce", train_lm=True, loss="eq9"),
            "--train-lm must come with --rule lpo, got --rule reinforce.*--no-train-lm",
        ),
        (
            lambda: LPOConfig(rule="regression", loss="eq11"),
            "--loss eq11 must come with --rule lpo or reinforce, got --rule regression.*eq10",
        ),
        (lambda: LPOConfig(clip=0), "--clip must be from 1e-09 to 1,000, got 0"),
        (
            lambda: RunConfig(level="token", lpo=LPOConfig(loss="eq11_marginal")),
            "--loss eq11_marginal must come with",
        ),
        (lambda: RunConfig.from_dict({"format": 999}), "another version"),
        (lambda: RunConfig.from_dict(json_of(threads=None)), "missing.*another version"),
        (lambda: RunConfig.from_dict(json_of(seed=-1)), "--seed must be from 0"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_the_name_of_its_flag(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("rule", RULES)
def test_the_loss_by_default_is_that_of_level_and_rule(rule):
    resolved = [LPOConfig(rule=rule).resolved(level).loss for level in ("sequence", "token")]
    assert resolved == ["eq10", "eq11" if rule == "lpo" else "eq10"]
    flags = [Namespace(rule=rule, level=level) for level in ("sequence", "token")]
    assert [whole_config(args, RunConfig()).lpo.loss for args in flags] == resolved
    assert whole_config(Namespace(level="token", loss="eq10"), RunConfig()).lpo.loss == "eq10"


def test_settings_survive_a_trip_through_json():
    given = {"seed": 3, "level": "token", "temperatures": (0.0, 0.7), "tasks": ("math",)}
    config = RunConfig(**given, pretrain=PretrainConfig(steps=7))
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_no_two_sections_share_a_flag_and_every_flag_is_explained():
    sections = (RunConfig, *SECTIONS.values())
    fields = [field for section in sections for field in dataclasses.fields(section)]
    flags = {field.name: field.metadata["help"] for field in fields if "help" in field.metadata}
    assert len(flags) == sum("help" in field.metadata for field in fields) and all(flags.values())

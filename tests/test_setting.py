"""Settings as they are typed: read exactly, or refused in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilpo.config import RunConfig
from minilpo.decoding.choices import Temperatures
from minilpo.setting import DecodingSetting

shares = st.floats(1e-6, 1).map(lambda share: float(f"{share:g}"))
settings = st.builds(
    DecodingSetting,
    st.floats(1e-4, 100).map(lambda t: float(f"{t:g}")),
    top_k=st.integers(0, 1_000_000),
    top_p=shares,
    min_p=shares | st.just(0.0),
) | st.just(DecodingSetting(0.0))


@given(settings)
def test_the_text_of_a_setting_is_read_back_as_the_same_setting(setting):
    assert DecodingSetting.parse(str(setting)) == setting
    assert Temperatures.parse([str(setting)]).temperatures == (setting.temperature,)


@given(st.permutations(["top_k=40", "top_p=0.9", "min_p=0.05"]), st.integers(0, 3))
def test_rules_may_come_in_any_order_and_one_way_to_write_them_is_kept(rules, n):
    typed, kept = ["0.70", *rules[:n]], ["0.7", *sorted(rules[:n], key=lambda rule: rule[::-1])]
    assert sorted(str(DecodingSetting.parse(" , ".join(typed))).split(",")) == sorted(kept)


@given(st.lists(settings, min_size=2, max_size=9, unique_by=str), st.randoms())
def test_the_order_of_choices_is_free_and_they_are_kept_from_cold_to_warm(settings, rng):
    texts = [str(setting) for setting in settings]
    config = RunConfig(choices=tuple(texts))
    rng.shuffle(texts)
    assert RunConfig(choices=tuple(texts)) == config == RunConfig.from_dict(config.to_dict())
    assert sorted(config.choices) == sorted(texts)
    assert list(config.temperatures) == sorted(s.temperature for s in settings)
    names = Temperatures.parse(config.choices).names
    assert len(set(names)) == len(names)


def test_at_one_temperature_what_keeps_more_tokens_comes_later():
    texts = ("1", "1,top_p=0.9", "1,top_k=40", "1,top_k=5", "1,min_p=0.1", "1,min_p=0.5", "0")
    assert RunConfig(choices=texts).choices == (
        *("0", "1,top_k=5", "1,top_k=40", "1,top_p=0.9", "1,min_p=0.5", "1,min_p=0.1", "1"),
    )


def test_a_rule_that_keeps_every_token_is_none():
    assert str(DecodingSetting.parse("-0,top_k=0,top_p=1,min_p=0")) == "0"


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (["warm", "1"], "temperature must be a number, got 'warm'"),
        (["min_p=0.1", "1"], "temperature must be a number, got 'min_p=0.1'"),
        (["nan", "1"], "temperature must be 0 .* to 100, got nan"),
        (["1e-38", "1"], "from 1e-06 .* got 1e-38"),
        (["-0.5", "1"], "must be 0 .*, got -0.5"),
        (["100.1", "1"], "to 100, got 100.1"),
        (
            ["1,tpo_p=0.9", "0"],
            "rules must be of top_k, top_p, min_p, each once, got 'tpo_p=0.9' in '1,tpo_p",
        ),
        (["1,", "0"], "rules must be of top_k, top_p, min_p, each once, got ''"),
        (["1,top_p=much", "0"], "top_p must be a number, got 'much' in '1,top_p=much'"),
        (["1,top_k=2.5", "0"], "top_k must be a whole number, got '2.5'"),
        (["1,top_k=-1", "0"], "top_k must be a whole number from 0 .* to 1,000,000, got -1"),
        (["1,top_k=1" + 30 * "0", "0"], "top_k must be a whole number from 0 .* to 1,000,000"),
        (["1,top_p=0", "0"], "top_p must be above 0 and at most 1, got 0"),
        (["1,top_p=nan", "0"], "top_p must be above 0 and at most 1, got nan"),
        (["1,min_p=2", "0"], "min_p must be from 0 to 1, got 2"),
        (["1,min_p=0.1,min_p=0.2", "0"], "each once, got 'min_p=0.2'"),
        (
            ["0,min_p=0.1", "1"],
            "temperature 0 takes one token, so leave its rules out, got '0,min_p=0.1'",
        ),
        (["1,min_p=0.1"], "from 2 to 100 to choose from, got 1"),
        (["1,min_p=.1", "0", "1.0,min_p=0.10"], "different, got 1,min_p=0.1 twice"),
        ([str(k) for k in range(101)], "from 2 to 100 to choose from, got 101"),
    ],
)
def test_what_is_no_setting_is_refused_with_the_flag_the_word_and_an_example(choices, said):
    with pytest.raises(ValueError, match=f"^--choices: .*{said}.*; write them as in 0 0.6 1.2,min"):
        RunConfig(choices=tuple(choices))


def test_temperatures_and_choices_are_not_given_together():
    with pytest.raises(ValueError, match="must not be given together"):
        RunConfig(temperatures=(0.0, 1.0), choices=("0", "0.5"))

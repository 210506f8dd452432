"""Chooses the training that the settings name, LPO or a rival; counts its responses."""

import math
from collections.abc import Callable
from typing import Any

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.lm.language_model import LanguageModel
from minilpo.lpo import fit, train_lpo
from minilpo.rivals.joint import JointState, train_joint
from minilpo.rivals.reward_rules import fit_rewards, train_by_rewards
from minilpo.training import VALIDATION_SAMPLES, TrainState


def training_of(
    lm: LanguageModel, head: AdaptiveDecoder, config: LPOConfig
) -> tuple[Callable[..., list[dict[str, Any]]], Callable[..., object], TrainState]:
    """Finds a loop as `lpo.train_lpo`, a `fit` of a head alone, and the state at the beginning."""
    if config.train_lm:
        return train_joint, fit, JointState(lm, head, config)
    if config.rule != "lpo":
        return train_by_rewards, fit_rewards, TrainState(head, config)
    return train_lpo, fit, TrainState(head, config)


def responses_per_round(config: LPOConfig, n_tasks: int) -> int:
    """Counts the responses of a round, also those to held-out prompts.

    >>> responses_per_round(LPOConfig(), n_tasks=4)
    18432
    """
    to_learn = math.ceil(config.prompts / n_tasks) * config.samples
    return n_tasks * (to_learn + config.validation_prompts * VALIDATION_SAMPLES)

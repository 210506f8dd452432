"""The training that the settings name, LPO or a rival, and how many responses it takes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.config import LPOConfig
from minilpo.lm.language_model import LanguageModel
from minilpo.lpo import fit, train_lpo
from minilpo.rivals.joint import JointState, train_joint
from minilpo.rivals.reward_rules import fit_rewards, train_by_rewards
from minilpo.training import VALIDATION_SAMPLES, TrainState


class Training(NamedTuple):
    """A training loop, its `fit`, and its state at the beginning."""

    train: Callable[..., list[dict[str, Any]]]  # as `lpo.train_lpo`
    fit: Callable[..., object]  # as `lpo.fit`, of a head alone
    state: TrainState


def training_of(lm: LanguageModel, head: AdaptiveDecoder, config: LPOConfig) -> Training:
    """Finds the training that `config.rule` and `config.train_lm` name."""
    if config.train_lm:
        return Training(train_joint, fit, JointState(lm, head, config))
    if config.rule != "lpo":
        return Training(train_by_rewards, fit_rewards, TrainState(head, config))
    return Training(train_lpo, fit, TrainState(head, config))


def responses_per_round(config: LPOConfig, n_tasks: int) -> int:
    """Counts the responses of a round, with the responses to held-out prompts.

    >>> responses_per_round(LPOConfig(), n_tasks=4)
    18432
    """
    to_learn = math.ceil(config.prompts / n_tasks) * config.samples
    return n_tasks * (to_learn + config.validation_prompts * VALIDATION_SAMPLES)

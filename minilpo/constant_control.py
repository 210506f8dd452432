"""A control for LPO: a head that sees nothing, trained beside the real one on the same pairs."""

from collections.abc import Callable

import torch

from minilpo.adaptive_decoder import ConstantHead
from minilpo.config import LPOConfig
from minilpo.decoding.rollout import Rollout
from minilpo.lpo import fit
from minilpo.preferences import PreferencePairs
from minilpo.seeds import torch_generator
from minilpo.training import TrainState


def fit_constant(
    head: ConstantHead, config: LPOConfig, seed: int, fit: Callable[..., object] = fit
) -> Callable[[TrainState, Rollout, PreferencePairs], None]:
    """A callback for a `TrainState`, which fits the constant head to the pairs of the first round.

    To these alone: then both heads are uniform and would have written the same responses.

    Args:
        head: trained in place.
        config, seed: those of the training.
        fit: that of the training, if it isn't LPO's.
    """

    def callback(state: TrainState, rollout: Rollout, pairs: PreferencePairs) -> None:
        if len(state.log) == 1:
            optimizer = torch.optim.Adam(head.parameters(), lr=config.head_learning_rate)
            generator = torch_generator(seed, "constant control")
            fit(head, rollout.decisions, pairs, optimizer, config, generator)

    return callback

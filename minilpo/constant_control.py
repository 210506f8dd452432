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
    """Makes a callback for a `TrainState`: it fits the constant head to the first round's pairs.

    Only in the first round are both heads uniform, so that both would write the same responses.

    Args:
        head: trained in place.
        config, seed: the training's own.
        fit: that of the training, if it isn't LPO's.
    """

    def callback(state: TrainState, rollout: Rollout, pairs: PreferencePairs) -> None:
        if len(state.log) == 1:
            optimizer = torch.optim.Adam(head.parameters(), lr=config.head_learning_rate)
            generator = torch_generator(seed, "constant control")
            fit(head, rollout.decisions, pairs, optimizer, config, generator)

    return callback

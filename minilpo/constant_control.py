"""A control for LPO: a head that sees nothing, trained beside the real one on the same pairs."""

from collections.abc import Callable

from minilpo.adaptive_decoder import ConstantHead
from minilpo.config import LPOConfig
from minilpo.lpo import HeadScore, fit
from minilpo.training import Round, Training, optimizer_of


def fitting(constant_head: ConstantHead, config: LPOConfig) -> Callable[[Training, Round], None]:
    """What a `Training` has to do after each round to fit a constant head to the first one's pairs.

    Only of the first, when both heads are uniform and would have written the same responses.
    """

    def after_round(training: Training, ended: Round) -> None:
        if len(training.log) > 1:
            return
        score = HeadScore(constant_head, config)
        # With --train-lm the examples are texts; a head alone needs no more than its decisions.
        examples = ended.rollout.decisions if config.train_lm else ended.examples
        with training.timed("lpo"):
            fit(
                score,
                examples,
                ended.compared,
                optimizer_of(score, config),
                config,
                ended.generator,
            )

    return after_round

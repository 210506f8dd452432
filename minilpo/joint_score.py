"""Eq. 9 trains the language model too: it reads the responses again, and so does a frozen copy."""

import copy
from typing import Any

from torch import Tensor, nn

from minilpo.adaptive_decoder import AdaptiveDecoder, unpack
from minilpo.config import LPOConfig
from minilpo.decoding.rollout import Rollout, forward_rollout
from minilpo.lm.language_model import GPTLanguageModel, LanguageModel
from minilpo.losses import choice_scores, joint_scores


class JointScore:
    """The score of responses under Eq. 9. It trains the head and the language model.

    (The hidden states that a rollout holds are those of the model that wrote it.)

    Args:
        lm: ours, since its weights are trained; a frozen copy of them is the reference.
        head: gives each choice a probability.
        config: how scores are reduced, and what the head is compared with.

    Raises:
        ValueError: if the language model isn't ours.
    """

    def __init__(self, lm: LanguageModel, head: AdaptiveDecoder, config: LPOConfig):
        if not isinstance(lm, GPTLanguageModel):
            raise ValueError(
                f"--train-lm must have a GPTLanguageModel to train, got {type(lm).__name__}; "
                "train the head alone"
            )
        # The copy is made now: what is compared later is how far the words have moved since.
        frozen = copy.deepcopy(lm.model).requires_grad_(False)
        self.lm: GPTLanguageModel = lm
        self.reference = GPTLanguageModel(frozen, lm.tokenizer)
        self.head: AdaptiveDecoder = head
        self.config: LPOConfig = config
        model = lm.model.requires_grad_(True)
        self.trained: dict[str, nn.Module] = {"head": head, "model": model}

    def examples(self, lm: LanguageModel, rollout: Rollout, choices: Any) -> Rollout:
        """What the score is made from: the texts themselves."""
        return rollout

    def __call__(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """The scores of R responses, (R,), and the choice logits at their n decisions, (n, K)."""
        made, mask = rollout.decisions, rollout.response_mask
        hidden_states, logprobs = self._read(self.lm, rollout)
        _, ref_logprobs = self._read(self.reference, rollout)
        # The head reads what stands before a token that a decision was made for: the first, or all.
        is_decision = mask[:, : made.mask.shape[1]].new_zeros(mask.shape)
        is_decision[:, : made.mask.shape[1]] = made.mask
        packed = self.head(hidden_states[is_decision[mask]])  # (n, K)
        reduce = self.config.reduce
        choices = choice_scores(
            unpack(packed, made.mask),
            made.choice_ids,
            made.mask,
            reduce=reduce,
            uniform_reference=self.config.uniform_reference,
        )
        return joint_scores(logprobs, ref_logprobs, mask, choices, reduce=reduce), packed

    def _read(self, lm: LanguageModel, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Hidden states before each response token, (n, C), and the tokens' logprobs, (R, T)."""
        hidden_states, logits = forward_rollout(lm, rollout)
        token_ids = rollout.token_ids[rollout.response_mask].long().to(logits.device)
        logprobs = logits.log_softmax(-1).gather(-1, token_ids[:, None])[:, 0]  # (n,)
        return hidden_states.cpu(), unpack(logprobs.cpu(), rollout.response_mask)

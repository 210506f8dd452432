"""Eq. 9 trains the language model too: the responses have to be read again, by the model in training and by a frozen copy."""

import copy
from typing import Any

from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.losses import choice_scores, joint_scores
from minilpo.model import GPT
from minilpo.rollout import Rollout, read, unpack
from minilpo.tokenizer import Tokenizer


class WordScores:
    """What Eq. 9 needs to train the language model too: it reads the responses again, and so does a frozen copy.

    Args:
        model: the language model, in training.
        tokenizer: the model's.
        reduce: over the words.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, reduce: str):
        self.model, self.tokenizer, self.reduce = model, tokenizer, reduce
        self.reference = copy.deepcopy(model).requires_grad_(False)

    def joint_scores(self, head: AdaptiveDecoder, rollout: Rollout, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """`joint_scores` of a rollout, (R,), and what the head says at its n decisions, (n, K).

        Both with gradients for the head and for the language model, which is read as it is now: the hidden states that the
        rollout holds are those of the model that wrote it.
        """
        hidden_states, logprobs = self.read_words(self.model, rollout)
        ref_logprobs = self.read_words(self.reference, rollout)[1]
        temperature_logits = head(hidden_states[rollout.decided_tokens[rollout.response_mask]])  # (n, K)
        unpacked = unpack(temperature_logits, rollout.decision_mask)  # (R, S, K)
        choices = choice_scores(unpacked, rollout.temperature_ids, rollout.decision_mask, **options)
        scores = joint_scores(logprobs, ref_logprobs, rollout.response_mask, choices, reduce=self.reduce)
        return scores, temperature_logits

    def read_words(self, model: GPT, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Hidden states in front of each of n response tokens, (n, C), and the tokens' log-probabilities, (R, T)."""
        hidden_states = read(model, self.tokenizer, rollout)
        token_ids = rollout.token_ids[rollout.response_mask].long()
        logprobs = model.logits(hidden_states).log_softmax(-1).gather(-1, token_ids[:, None])[:, 0]  # (n,)
        return hidden_states, unpack(logprobs, rollout.response_mask)

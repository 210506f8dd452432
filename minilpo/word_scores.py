"""Eq. 9 trains the language model too: the responses have to be read again, by the model in training and by a frozen copy."""

import copy
from typing import Any

import torch
from torch import Tensor

from minilpo.adaptive_decoder import AdaptiveDecoder
from minilpo.losses import choice_scores, joint_scores
from minilpo.model import GPT
from minilpo.rollout import Rollout
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

    def joint_scores(self, head: AdaptiveDecoder, rollout: Rollout, options: dict[str, Any]) -> Tensor:
        """(R,) `joint_scores` of a rollout, with gradients for the head and for the language model."""
        hidden_states, logprobs = self.read(self.model, rollout)
        ref_logprobs = self.read(self.reference, rollout)[1]
        S = rollout.temperature_ids.shape[1]
        choices = choice_scores(head(hidden_states[:, :S]), rollout.temperature_ids, rollout.decision_mask, **options)
        return joint_scores(logprobs, ref_logprobs, rollout.response_mask, choices, reduce=self.reduce)

    def read(self, model: GPT, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Hidden states in front of each response token, (R, T, C), and the tokens' log-probabilities, (R, T)."""
        prompts = [[*token_ids, self.tokenizer.sep_id] for token_ids in self.tokenizer.encode_batch(rollout.prompts)]
        T, longest, pad_id = rollout.token_ids.shape[1], max(map(len, prompts)), self.tokenizer.pad_id
        token_ids = rollout.token_ids.new_full((len(prompts), longest + T), pad_id, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            token_ids[row, : len(prompt)] = torch.tensor(prompt)
            token_ids[row, len(prompt) : len(prompt) + T] = rollout.token_ids[row]
        ends = torch.tensor([len(prompt) for prompt in prompts], device=token_ids.device)
        places = ends[:, None] - 1 + torch.arange(T, device=token_ids.device)  # (R, T) where the token before is read
        all_hidden_states = model(token_ids[:, : int((places[:, -1].max() + 1).clamp(max=model.config.block_size))])
        places = places.clamp(max=all_hidden_states.shape[1] - 1)  # only padding stands behind
        hidden_states = all_hidden_states.gather(1, places[..., None].expand(-1, -1, all_hidden_states.shape[-1]))
        logprobs = model.logits(hidden_states).log_softmax(-1)  # (R, T, V)
        return hidden_states, logprobs.gather(-1, rollout.token_ids.long()[..., None])[..., 0]

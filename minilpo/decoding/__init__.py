"""From prompts to responses.

sampling   logits and a temperature to a token
choices    the options: temperatures, alone or with rules
policies   ways to choose: the head in three ways, rules made by hand
rollout    responses with the decisions they were written by; their rewards
generate   batched generation, and generation with rewards
"""

from minilpo.decoding.choices import Choices, Temperatures
from minilpo.decoding.generate import Respond, respond
from minilpo.decoding.policies import Fixed, GreedyHead, Policy, SampledHead
from minilpo.decoding.rollout import Rollout

__all__ = [
    "Choices",
    "Fixed",
    "GreedyHead",
    "Policy",
    "Respond",
    "Rollout",
    "SampledHead",
    "Temperatures",
    "respond",
]

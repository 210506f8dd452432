"""From prompts to responses.

sampling   logits and a temperature to a token
choices    what can be chosen: temperatures, and other settings
policies   who chooses: the head in three ways, rules made by hand
rollout    responses with the decisions they were written by, and their rewards
generate   batched generation
"""

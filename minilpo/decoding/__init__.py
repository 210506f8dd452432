"""From prompts to responses.

sampling   logits and a temperature to a token
choices    what can be chosen: temperatures, alone or with rules
policies   who chooses: the head in three ways, rules made by hand
rules      rules without a head, from other papers
rollout    responses with the decisions they were written by, and their rewards
generate   batched generation
"""

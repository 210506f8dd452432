"""Measures the reward of a trained head, and compares it with fixed temperatures.

statistics  means over tasks, win-rates, intervals
measure     responses at fixed temperatures, with the head, at random and by rules, scored
summary     these summed up
evaluate    both, for `metrics.json`
rehearse    the whole work once in small, to try out somebody's own task
"""

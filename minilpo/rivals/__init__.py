"""Rivals of LPO, and the theory of its optimum. The core imports nothing from here.

rules             rules without a head, from other papers
optimum           where Eq. 10 leads, exactly, for each way to form pairs
reward_rules      learning from all responses, without pairs: REINFORCE, GRPO, regression
joint             Eq. 9, which trains the words too
by_config         the training that the settings name: LPO's, or one of these
think_or_answer   a task whose choice isn't a temperature: to think first, or to answer at once
controls          tasks on which choosing can't help or may mislead; all tasks by name
"""

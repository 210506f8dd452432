"""The exercises of the lessons: `exercises.temperature_softmax.check(my_function)`.

trial        calls a learner's function once and watches it
verdict      judges a value: form first, then numbers
examination  judges an answer on random inputs and names the likely mistake
exercise     the base class of an exercise
transformer  lesson 1
temperature  lesson 2
rewards      lesson 3
choosing     lesson 4
preferring   lesson 5
losses       lesson 6
judging      lesson 7
by_word      lesson 8
voting       lesson 9
own          lesson 10

Each exercise is an object with `check`, `hint` and `solution`; `ALL` has them in the order of the
lessons.
"""

from minilpo.exercises.by_word import eq11_score, letter_reward, two_temperatures
from minilpo.exercises.choosing import greedy_choice, head_logits, mixture_probs, sampled_choice
from minilpo.exercises.judging import lpo_epoch, paired_bootstrap, shuffled_gain, win_rate
from minilpo.exercises.losses import choice_score, eq10_gradient, eq10_loss, eq10_optimum, nll_loss
from minilpo.exercises.own import experiment_conclusion, own_task, permuted_p_value
from minilpo.exercises.preferring import all_better_pairs, best_worst_pairs
from minilpo.exercises.rewards import best_constant, variety_reward
from minilpo.exercises.temperature import draw_token, entropy, temperature_softmax
from minilpo.exercises.transformer import attention_head, causal_mask, response_cross_entropy
from minilpo.exercises.voting import final_answer, majority_vote, vote_accuracy

WordCountTask = own_task  # every exercise also has the name of the function or class to write

ALL = (
    causal_mask,
    attention_head,
    response_cross_entropy,
    temperature_softmax,
    entropy,
    draw_token,
    variety_reward,
    best_constant,
    head_logits,
    greedy_choice,
    sampled_choice,
    mixture_probs,
    best_worst_pairs,
    all_better_pairs,
    eq10_loss,
    eq10_gradient,
    eq10_optimum,
    choice_score,
    nll_loss,
    lpo_epoch,
    win_rate,
    paired_bootstrap,
    shuffled_gain,
    eq11_score,
    two_temperatures,
    letter_reward,
    final_answer,
    majority_vote,
    vote_accuracy,
    own_task,
    experiment_conclusion,
    permuted_p_value,
)

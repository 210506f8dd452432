"""The exercises of the lessons: `exercises.temperature_softmax.check(my_function)`.

trial        one call of a learner's function, watched
verdict      judging a value: form first, then numbers
exercise     what an exercise is, and how it is checked
transformer  lesson 1
temperature  lesson 2
rewards      lesson 3
choosing     lesson 4
preferring   lesson 5
losses       lesson 6, and Eq. 11 of lesson 8
judging      lesson 7
by_word      lesson 8
voting       lesson 9
own          lesson 10

Each exercise is an object with `check`, `hint` and `solution`; `ALL` has them in the order of the
lessons.
"""

from minilpo.exercises.temperature import temperature_softmax

ALL = (temperature_softmax,)

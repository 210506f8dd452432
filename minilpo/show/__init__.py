"""Results as a person sees them.

plots     arrays to figures
document  HTML pages that stand alone
strip     text on the colours of its temperatures
report    the result table, its sentences, the figures and the examples of a run
samples   single responses, for `minilpo sample`
page      all of a run on one page
"""

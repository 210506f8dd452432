"""What a person gets to see.

plots     arrays to figures
document  HTML pages that stand alone
strip     text on the colours of its temperatures
report    the result table, the figures and the examples of a run
samples   single responses, for `minilpo sample`
page      all of a run on one page
"""

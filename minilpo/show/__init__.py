"""What a person gets to see.

plots    arrays to figures
strip    text on the colours of its temperatures
report   the result table, the figures and the examples of a run
samples  single responses, for `minilpo sample`
"""

"""What stands between the method and somebody's computer.

text       text that is safe to show
signals    Ctrl-C and its like
files      files are written whole or not at all, and nothing damaged is believed
device     a processor or an accelerator
progress   progress bars
threads    how many threads compute
"""

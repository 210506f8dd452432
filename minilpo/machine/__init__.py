"""What stands between the method and somebody's computer.

text      text that is safe to show
files     files are written whole or not at all, and nothing damaged is believed
threads   how many threads compute
progress  progress bars
signals   Ctrl-C and its like
"""

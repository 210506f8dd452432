"""The benchmark, run as `python -m tests.benchmarks`."""

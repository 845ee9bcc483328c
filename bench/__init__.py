"""Benchmarks of the whole system on this machine; what they print is to be read as ratios."""

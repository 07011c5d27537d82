"""Symbols and bytes: the arithmetic coder and the exact arithmetic behind its probabilities."""

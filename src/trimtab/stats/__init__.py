"""Intervals, proofs, sequential tests and percentiles: pure functions on arrays, numpy and scipy only."""

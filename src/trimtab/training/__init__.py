"""Trains PyTorch modules: one readable loop, and what it is made of."""

"""Make a trained neural network faster, smaller and greener without making it worse, and prove it."""

__version__ = "0.1.0"

"""Keep measurements by key."""

"""Map a variant to a variant, one technique per file."""

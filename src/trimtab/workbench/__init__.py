"""One short file per verb; the only room that knows the whole path."""

"""Log runs where people look."""

"""What runs in production: the bundle folder and how it is loaded."""

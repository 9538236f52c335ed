"""What optimize tries next: plan, race, budget, resume."""

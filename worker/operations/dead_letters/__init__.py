"""`dead-letters list`, `show` and `export`; what a dead letter holds."""

"""What decides: pure, without await, clock, client or connection."""

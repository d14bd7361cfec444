"""`dead-letters redrive`: send dead letters once more, each once."""

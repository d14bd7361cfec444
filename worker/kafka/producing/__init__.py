"""Publishing: transactions, their producers, and the leases without which nobody publishes."""

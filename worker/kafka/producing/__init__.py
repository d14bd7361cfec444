"""Publishing: Kafka transactions, their producers, and the leases that a worker needs to publish."""

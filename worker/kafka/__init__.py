"""Access to Kafka through aiokafka, and what the worker needs that aiokafka does not provide."""

"""Kafka, by way of aiokafka: what the rest of the worker needs of it and aiokafka does not give."""

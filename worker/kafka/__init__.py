"""Kafka as aiokafka reads it, without what it loses: private attributes of aiokafka are used here only."""

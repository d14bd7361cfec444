"""What travels on Kafka: the three events, their envelope and their topics.

Imports pydantic (with its core) and the standard library only, so that a publisher or a
subscriber can depend on this package without the worker or the database.
"""

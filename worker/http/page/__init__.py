"""The operator's page: what the group does, shown by any of its workers. It reads and changes nothing.

`site` answers the requests, `sources` asks Kafka and PostgreSQL, `question` keeps that from becoming much,
`overview` is what is shown, `rendering` and `templates/` make HTML of it.
"""

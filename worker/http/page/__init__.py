"""The operator's page: the state of the whole group, shown by each of its workers. It only reads.

`site` answers the requests, `sources` queries Kafka and PostgreSQL, `cached_query` limits those queries,
`overview` computes what is shown, `rendering` and `templates/` turn it into HTML.
"""

"""The HTTP endpoints of a worker. They only read, through connections of their own."""

"""Errors that end a benchmark with one line.

BenchError              it could not be run: a process ended, nothing moved any more
└── WrongResultError    it ran, and what it left behind is not what was ordered
"""


class BenchError(Exception):
    """The run cannot continue."""


class WrongResultError(BenchError):
    """The result is wrong, so its speed means nothing: an order is missing, doubled or oversold."""

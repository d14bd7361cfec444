"""Starts, supervises and stops worker processes."""

"""Bulk writes: COPY, unchecked foreign keys, catalogue imports."""

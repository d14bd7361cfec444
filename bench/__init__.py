"""The benchmark: `python -m bench --help`. How to read its table: README.md beside this file."""

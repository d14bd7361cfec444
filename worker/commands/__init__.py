"""The command line, a theme a file. Only typer is imported here: `--help` has to answer at once."""

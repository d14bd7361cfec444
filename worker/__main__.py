"""The console script `order-worker`, and `python -m worker`.

This module is imported before anything else: the signals are handled before a second of imports begins.
"""

from worker import interruption

interruption.end_at_once()


def main() -> None:
    """Run the command line, and end the process with its exit code, also if signals arrive meanwhile."""
    from worker import standard_streams

    standard_streams.prepare()
    from worker.cli import run_command

    code = run_command()
    interruption.end_at_once(code)
    raise SystemExit(code)


if __name__ == "__main__":
    main()

"""``python -m prom``, and the program ``prom``: the command line, and ^C while that is still being imported."""
# No recorded result depends on this file.

import sys


def main() -> None:
    """Run the command line; ^C ends it in silence, with exit code 130."""
    try:
        from prom.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

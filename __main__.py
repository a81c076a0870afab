"""`python -m qworker` is the command `qworker`."""

from .cli import main

if __name__ == "__main__":
    main()

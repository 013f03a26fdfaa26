"""`python -m hauberk` is the command line."""

from hauberk.cli import main

if __name__ == "__main__":
    main()

"""`python -m harness.cli`: the same as `bench`."""

from harness.cli import main

if __name__ == "__main__":
    main()

"""`python -m minilpo` is the same as `minilpo`."""

from minilpo.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m fcos`: the commands, from the code of the current folder (DVC's stages call it this way)."""

from fcos.cli import main

if __name__ == "__main__":
    main()

"""``python -m meshctl.cli``: the command line where the ``meshctl`` script is not on PATH."""

from __future__ import annotations

from meshctl.cli import main

if __name__ == "__main__":
    main(prog_name="meshctl")

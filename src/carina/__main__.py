"""``python -m carina`` is the ``carina`` program."""

from carina.cli import main

main()

"""`python -m fakesys` is the command `fakesys`."""

from fakesys.cli import main

main()

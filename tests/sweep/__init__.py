"""Every failure of a program."""

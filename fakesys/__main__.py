"""`python -m fakesys`, and the entry point of the command `fakesys`.

Nothing heavy is imported before Ctrl-C has its default action: a traceback of an import tells a
user nothing.
"""

import signal


def main() -> None:
    """Run the command."""
    # Otherwise SIGINT is ignored, as in the background of a shell, and remains so.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fakesys import cli

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli.main()
    finally:
        if interruptible:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()

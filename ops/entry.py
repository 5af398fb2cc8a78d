"""Entry point of the program `lorikeet`.

Importing the commands takes a second. During the import and after the command's end, Ctrl-C ends
the process at once. In between, it raises KeyboardInterrupt, so that commands can clean up.
"""

import signal


def main() -> None:
    """Run the command in `sys.argv`."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored
    if is_default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ops.cli import main as run_command

    try:
        if is_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run_command()
    finally:
        if is_default:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

"""The command line: ``netsim``, and ``kubectl netsim`` under the name kubectl-netsim.

argparse and not typer: a trace should feel like ``ip route get``. Importing argparse costs 7 ms where click takes 27 and
typer 46, and the help of a command line this size needs nothing more. Whatever a command works with is imported when it
runs, so that ``--help`` stays instant.

``main`` turns every exception into a message and an exit code; nobody ever sees a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from netsim import collector

INTERRUPTED, INTERNAL = 130, 70


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. ``--help`` and wrong usage raise SystemExit, as argparse does."""
    with collector.resting():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    from netsim.cli import failure

    if foreign := failure.shadowed():
        return failure.tell(foreign, INTERNAL)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from netsim.cli.parser import parse

        options = parse(failure.program(), arguments)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        failure.quiet_stdout()
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough (``| head``)
        failure.quiet_stdout()
        return 0
    except Exception as error:
        return failure.explain(error, arguments)

"""How a command ends.

Exit status: 0 all entries written; 1 some kept as originals on error, damaged or quarantined; 2 the command cannot be
meant as it stands; 3 the job itself failed; 130 stopped by Ctrl-C (the same command resumes).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import typer

from pipeline.core.errors import PipelineError, UsageError


def with_exit_status(command: Callable[..., int]) -> Callable[..., NoReturn]:
    """Return a command that exits with its status; errors of ours are one sentence on standard error, without a traceback."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> NoReturn:
        polite = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, also where that is ignored
        try:
            status = command(*arguments, **options)
            sys.stdout.flush()
        except KeyboardInterrupt:
            typer.echo("Stopped. The same command resumes.", err=True)
            status = 130
        except BrokenPipeError:  # as in `iarn inspect --entries | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at its end
            status = 141
        except UsageError as error:
            typer.echo(f"iarn: {error}", err=True)
            status = 2
        except PipelineError as error:
            typer.echo(f"iarn: {error}", err=True)
            status = 3
        except OSError as error:  # the local disk's: full, read-only, a file where a folder should be
            typer.echo(f"iarn: {error.filename or 'The local disk'} cannot be used ({error.strerror or error}).", err=True)
            status = 3
        finally:
            signal.signal(signal.SIGTERM, polite)
        sys.exit(status)

    return run

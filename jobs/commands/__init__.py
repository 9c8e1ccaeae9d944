"""The commands as they are typed: options and arguments, with what `--help` says of them; the only typer, beside ``cli``.

In: words. Out: a checked request, and the exit status of the job that it was handed to. A job's own module, and with it torch
and Ray, is imported when the request is complete.
"""

"""What `iarn` does, as thin entry points: each reads what was asked for, runs the pipeline, and says how it went.

cli         which commands there are
commands/   a command's options, parsed and checked before anything heavy is loaded
requests    what a command hands on; rescale, restore, verify, inspect and submit do it, console tells of it
demo        `make demo`
web/        the HTTP service and its gallery
reports/    pages, charts and sheets
training/   training and measuring the network
"""

"""The command line: one module per subcommand. Flags live here and nowhere else in the package.

Each subcommand module has `DESCRIPTION` and `EXAMPLES` for `--help`, `FLAGS` (its own absl flags), `add_arguments` for what is
positional, and `run`, which imports whatever is heavy only after the flags have been checked.
"""

"""`python export.py --flags` is `jpegsr export --flags`."""

import sys

from jpegsr.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))

"""`python train.py --flags` is `jpegsr train --flags`."""

import sys

from jpegsr.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

"""The script for spark-submit; everything is in the package beside it, which it takes to the executors."""

import sys

from kmer_spark.cli import main

if __name__ == "__main__":
    sys.exit(main())

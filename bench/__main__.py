"""`make bench`: every benchmark, one after the other; fails where one misses its target."""

import sys

from bench.relay import bench_relay

if __name__ == "__main__":
    sys.exit(0 if bench_relay() else 1)

"""What the router costs, measured against doing without it. See `python -m benchmarks.overhead`."""

"""What the router costs, how well it chooses, what it promises: `python -m benchmarks --help`."""

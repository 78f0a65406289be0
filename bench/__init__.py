"""Speed against a floor or a peer in the same run: CPU seconds, as ratios, written to bench/results/."""

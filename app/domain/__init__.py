"""What a kill and a revive mean, without I/O or a clock."""

"""What stops in the libraries that agents are written with; each module needs its library installed."""

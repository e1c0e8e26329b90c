"""How committed flips reach the other parts of a node."""

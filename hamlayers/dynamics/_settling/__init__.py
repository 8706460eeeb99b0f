"""What settling consists of: the loop, its problem, the methods, and the derivatives of where they end."""

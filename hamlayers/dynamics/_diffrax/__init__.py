"""What diffrax is handed: the vector field, solvers that know the dynamics, clocks, saves and steps."""

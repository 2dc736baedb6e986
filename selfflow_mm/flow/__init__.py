"""The theory: path, timestep distributions, objectives, solvers, guidance."""

"""The flagship family: one content-weighted model for every rate."""

"""The flagship's family in training: its networks, its objective, its model file."""

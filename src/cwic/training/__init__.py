"""The training half: torch networks, their training and their export to a model file."""

"""The training half: torch networks, their training and their export to a model file.

Nothing outside this package needs torch (design: two halves, one seam). The seam is
:mod:`cwic.training.export`, which writes what :mod:`cwic.model_file` reads.
"""

"""Encoder time for smaller files: the latents of one picture are moved before they are coded."""

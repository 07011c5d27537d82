"""Encoder time for smaller files: latents of one picture, moved by what they cost and what they bring."""

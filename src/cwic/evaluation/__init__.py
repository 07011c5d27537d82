"""Measuring codecs against each other: `cwic evaluate`, extra `evaluate`."""

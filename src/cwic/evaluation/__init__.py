"""Measuring codecs against each other: `cwic evaluate`, extra `evaluate`.

`anchors` puts every codec in one form, `metrics` and `perceptual` say how near two pictures are,
`measurement` makes the points of each picture and keeps them, `rate_distortion` averages them and
computes BD-rates, `tables`, `plots` and `report` write them down, `benchmark` does all of it.
"""

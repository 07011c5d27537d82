"""Pictures for training that nobody has to collect: drawn from a seed, fonts and photographs.

What people compress beside photographs: screens, pages, charts, flat art, soft gradients, long
straight lines, and text laid over photographs. `scripts/render_pictures` is the command. Every
picture is a function of (seed, index), the fonts and the photographs alone.
"""

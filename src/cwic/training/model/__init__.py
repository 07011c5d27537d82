"""The networks, one file per box of the paper's figure; :mod:`.network` wires them.

Legend used for shapes in this package: B pictures of a batch, (H, W) picture size in pixels,
(h, w) = (H / 8, W / 8) size of the code, n code channels, L importance levels.
"""

"""The family of Li et al., CVPR 2018, in training: its networks, its objective, its model file."""

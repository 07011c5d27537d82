"""The family of the CVPR 2018 paper: binary code and importance map."""

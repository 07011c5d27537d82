"""The command `cwic`."""

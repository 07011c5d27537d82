"""Model families: what the codec needs of one, and each in a folder of its own."""

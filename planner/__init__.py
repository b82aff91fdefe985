"""The conductor: the only room that imports the other three."""

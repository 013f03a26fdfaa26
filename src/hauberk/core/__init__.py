"""The ten nouns and the ports. Standard library and msgspec only."""

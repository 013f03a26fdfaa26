"""May they: Istio's policy language, one normalised form, one index."""

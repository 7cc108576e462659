"""The searches that ``search.algorithm`` names."""

"""Ray: the workers on a cluster, and the only place that imports it."""

"""What the operator serves: outcomes from bridges, probes, metrics, and the certificate for it."""

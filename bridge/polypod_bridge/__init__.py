"""The bridge: the sidecar that supervises a runtime, speaks its protocol, and reports to the Execution API."""

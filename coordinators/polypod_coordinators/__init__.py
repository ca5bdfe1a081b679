"""What runs inside the bridge sidecar: coordinators, comm protocol, supervisor, logs, Execution API client."""

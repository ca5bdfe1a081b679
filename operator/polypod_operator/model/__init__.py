"""What the operator knows of TaskRuns and pods: parsed objects, conditions, Events. Pure."""

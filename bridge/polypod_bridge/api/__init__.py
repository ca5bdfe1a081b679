"""The client of the Task Execution API."""

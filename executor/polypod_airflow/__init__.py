"""Airflow's side of Polypod: an executor that runs tasks of mapped queues as TaskRuns."""

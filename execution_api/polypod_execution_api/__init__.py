"""The standalone Execution API: Airflow's Task Execution API for people without Airflow, on SQLite or PostgreSQL."""

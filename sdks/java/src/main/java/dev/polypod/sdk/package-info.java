/** Write Airflow tasks for the JVM; in the shape of Airflow's own Java SDK, so that moving is an import. */
package dev.polypod.sdk;

package dev.polypod.sdk;

/** The supervisor answered a request with an error. */
public final class ApiException extends RuntimeException {
  private final String type;

  public ApiException(String type, String message) {
    super(message);
    this.type = type;
  }

  /** Returns one of Airflow's error types, such as {@code API_SERVER_ERROR} or {@code PERMISSION_DENIED}. */
  public String type() {
    return type;
  }
}

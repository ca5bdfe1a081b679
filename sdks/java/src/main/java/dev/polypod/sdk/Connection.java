package dev.polypod.sdk;

/** How to reach another system. Its text form shows neither password nor extra. */
public final class Connection {
  public final String id;
  public final String type;
  public final String host;
  public final String schema;
  public final String login;
  public final String password;

  /** null if the connection has none. */
  public final Integer port;

  /** The extra as text, usually JSON. */
  public final String extra;

  public Connection(
      String id, String type, String host, String schema, String login, String password, Integer port, String extra) {
    this.id = id;
    this.type = type;
    this.host = host;
    this.schema = schema;
    this.login = login;
    this.password = password;
    this.port = port;
    this.extra = extra;
  }

  @Override
  public String toString() {
    return "Connection[" + id + " " + type + " " + host + (port == null ? "" : ":" + port) + "]";
  }
}

package dev.polypod.sdk;

/** Names an asset, by name, by URI, or by both. */
public final class Asset {
  public final String name;
  public final String uri;

  public Asset(String name, String uri) {
    this.name = name;
    this.uri = uri;
  }

  /** Returns an asset that only its name is known of. */
  public static Asset byName(String name) {
    return new Asset(name, null);
  }

  /** Returns an asset that only its URI is known of. */
  public static Asset byUri(String uri) {
    return new Asset(null, uri);
  }
}

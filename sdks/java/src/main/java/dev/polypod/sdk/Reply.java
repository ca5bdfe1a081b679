package dev.polypod.sdk;

import java.util.List;
import java.util.Map;

/** What a person has answered. */
public final class Reply {
  public final List<String> chosen;
  public final Map<String, Object> params;

  public Reply(List<String> chosen, Map<String, Object> params) {
    this.chosen = chosen;
    this.params = params;
  }
}

package dev.polypod.sdk.internal;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Prints the error for each value of "places" in sdks/values.json. */
public final class Places {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  public static class Line {
    public double price;
    public Map<String, Integer> counts;
  }

  public static class Order {
    public int id;
    public List<Line> lines;
    public int[][] matrix;
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> found = new LinkedHashMap<>();
    var names = MAPPER.readTree(new File(arguments[0])).get("places").fieldNames();
    while (names.hasNext()) {
      String text = names.next();
      try {
        Json.into(MAPPER.readValue(text, Object.class), Order.class);
        found.put(text, "accepted");
      } catch (IllegalArgumentException error) {
        found.put(text, error.getMessage());
      }
    }
    System.out.println(MAPPER.writeValueAsString(found));
  }
}

package dev.polypod.sdk.internal;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.lang.reflect.Type;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.Year;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** Prints what values become that Jackson would change or send as something else. */
public final class Conversions {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  public enum Letter {
    A
  }

  static final class Opaque {}

  private static Type type(TypeReference<?> reference) {
    return reference.getType();
  }

  public static void main(String[] none) throws Exception {
    Type byInteger = type(new TypeReference<Map<Integer, Integer>>() {});
    Type byDouble = type(new TypeReference<Map<Double, Integer>>() {});
    Object[][] read = {
      {"{\"1\":1,\"-2\":2}", byInteger}, {"{\"01\":1,\"1\":2}", byInteger}, {"{\"+1\":1}", byInteger}, {"{\"a\":1}", byInteger},
      {"{\"0.5\":1,\"2\":1}", byDouble}, {"{\"1e400\":1}", byDouble}, {"{\"0.10\":1}", byDouble},
      {"\" A\"", Letter.class}, {"\" 8f0e4f4e-1f1b-4b1b-9b1b-1b1b1b1b1b1b\"", UUID.class}, {"\" a \"", String.class},
      {"\"2026-11-21\"", LocalDate.class}, {"\"2026-11-21T10:00:00Z\"", LocalDate.class}, {"\"2026-11-21T10:00:00\"", LocalDate.class},
      {"\"2026-11-21T10:00:00\"", LocalDateTime.class}, {"\"2026-11-21T10:00:00Z\"", LocalDateTime.class},
      {"\"10:00\"", LocalTime.class}, {"\"2026-11-21T10:00:00\"", LocalTime.class},
      {"\"2026\"", Year.class}, {"2026", Year.class}, {"\"2026-11-21T10:00:00.1234567891Z\"", Instant.class},
    };
    for (Object[] one : read) {
      String told;
      try {
        told = MAPPER.writeValueAsString(Json.plain(Json.into(MAPPER.readValue((String) one[0], Object.class), (Type) one[1])));
      } catch (IllegalArgumentException error) {
        told = "refused: " + error.getMessage();
      }
      System.out.println(one[0] + ": " + told);
    }
    Map<Object, Object> twice = new LinkedHashMap<>();
    twice.put(1, "a");
    twice.put("1", "b");
    Object[] sent = {
      twice, Map.of("a", List.of(twice)), Map.of(List.of(1), 2), Map.of("a", Map.of(new Opaque(), 2)), Map.of(new byte[0], 2),
      Map.of("a", List.of(1, Double.NaN)), List.of(Map.of("b", new byte[] {1})), List.of("ok", "cut \uD83D"),
      List.of(new RuntimeException("no disk")), Map.of(1, "a"), Map.of(Letter.A, Arrays.asList(1, null)), new HashMap<>(Map.of(Instant.EPOCH, 1)),
    };
    for (Object value : sent) {
      String told;
      try {
        byte[] frame = Wire.encode(1L, Map.of("value", Json.plain(value)));
        told = MAPPER.writeValueAsString(Wire.read(new DataInputStream(new ByteArrayInputStream(frame))).body.get("value"));
      } catch (Exception error) {
        told = "refused: " + error.getMessage();
      }
      System.out.println("sends " + told);
    }
  }
}

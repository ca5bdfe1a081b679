package dev.polypod.sdk.internal;

import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.type.TypeFactory;
import com.fasterxml.jackson.datatype.jdk8.Jdk8TypeModifier;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.File;
import java.io.IOException;
import java.lang.reflect.Type;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;

/** Prints what each value of sdks/values.json becomes in each type, alone and down to three levels deep. */
public final class ValueTable {
  private static final ObjectMapper MAPPER = new ObjectMapper();
  private static final TypeFactory TYPES = TypeFactory.defaultInstance().withModifier(new Jdk8TypeModifier());

  /** An enum. */
  public enum Letter {
    A,
    B
  }

  /** A class with a public field. */
  public static class Fields {
    public int A;
  }

  private static Map<String, JavaType> types() {
    Map<String, JavaType> types = new LinkedHashMap<>();
    for (Class<?> type :
        new Class<?>[] {
          boolean.class, Boolean.class, Character.class, short.class, int.class, Integer.class, long.class, float.class,
          double.class, BigInteger.class, BigDecimal.class, Number.class, String.class, Object.class, Instant.class,
          OptionalInt.class, int[].class, byte[].class
        }) {
      types.put(type.getSimpleName(), TYPES.constructType(type));
    }
    types.put("an enum", TYPES.constructType(Letter.class));
    types.put("Optional<Integer>", TYPES.constructParametricType(Optional.class, Integer.class));
    types.put("List<Integer>", TYPES.constructParametricType(List.class, Integer.class));
    types.put("Set<Integer>", TYPES.constructParametricType(Set.class, Integer.class));
    types.put("Map<String, Integer>", TYPES.constructParametricType(Map.class, String.class, Integer.class));
    types.put("a class with `public int A`", TYPES.constructType(Fields.class));
    return types;
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, Map<String, String>> found = new LinkedHashMap<>();
    for (Map.Entry<String, JavaType> type : types().entrySet()) {
      Map<String, String> row = new LinkedHashMap<>();
      for (var value : MAPPER.readTree(new File(arguments[0])).get("values")) {
        String text = value.asText();
        row.put(text, outcome(type.getValue(), text, 0));
        for (int depth = 1; depth <= 3; depth++) {
          String deep = outcome(type.getValue(), text, depth);
          if (!deep.equals(row.get(text))) {
            throw new AssertionError(text + " into " + type.getKey() + ": " + row.get(text) + ", " + deep + " at " + depth);
          }
        }
      }
      found.put(type.getKey(), row);
    }
    System.out.println(MAPPER.writeValueAsString(found));
  }

  private static String outcome(JavaType type, String text, int depth) throws IOException {
    String path = "";
    for (int level = 0; level < depth; level++) {
      if (level % 2 == 1) {
        type = TYPES.constructMapType(Map.class, TYPES.constructType(String.class), type);
        text = "{\"k\":" + text + "}";
        path = path.isEmpty() || path.startsWith("[") ? "k" + path : "k." + path;
      } else {
        type = type.isPrimitive() ? TYPES.constructArrayType(type) : TYPES.constructParametricType(List.class, type);
        text = "[" + text + "]";
        path = path.isEmpty() || path.startsWith("[") ? "[0]" + path : "[0]." + path;
      }
    }
    Object back;
    try {
      Object made = Json.into(wire(MAPPER.readValue(text, Object.class)), (Type) type);
      back = wire(Json.plain(made));
    } catch (IllegalArgumentException error) {
      if (!error.getMessage().startsWith(path) || error.getMessage().contains("Source")) {
        throw new AssertionError(text + " into " + type + ": no path " + path + " in: " + error.getMessage(), error);
      }
      return "refused";
    } catch (IOException error) {
      return "sent back: " + error.getMessage().replaceFirst("^[^ ]*: ", "");
    }
    Object before = MAPPER.readValue(text, Object.class);
    for (int level = depth; level > 0; level--) {
      back = level % 2 == 1 ? ((List<?>) back).get(0) : ((Map<?, ?>) back).get("k");
      before = level % 2 == 1 ? ((List<?>) before).get(0) : ((Map<?, ?>) before).get("k");
    }
    return same(before, back) ? "kept" : "becomes " + MAPPER.writeValueAsString(back);
  }

  /** Returns what arrives of a value that is sent. */
  private static Object wire(Object value) throws IOException {
    byte[] frame = Wire.encode(1L, Map.of("value", Optional.ofNullable(value).isPresent() ? value : Map.of("none", 1)), null);
    Object read = Wire.read(new DataInputStream(new ByteArrayInputStream(frame))).body.get("value");
    return value == null ? null : read;
  }

  private static boolean same(Object one, Object other) {
    if (one instanceof Number && other instanceof Number) {
      return new BigDecimal(one.toString()).compareTo(new BigDecimal(other.toString())) == 0;
    }
    return MAPPER.valueToTree(one).equals(
        (left, right) -> {
          boolean numbers = left.isNumber() && right.isNumber();
          return numbers ? left.decimalValue().compareTo(right.decimalValue()) : left.equals(right) ? 0 : 1;
        },
        MAPPER.valueToTree(other));
  }
}

package dev.polypod.sdk.internal;

import com.fasterxml.jackson.annotation.JsonAutoDetect;
import com.fasterxml.jackson.annotation.JsonFormat;
import com.fasterxml.jackson.annotation.PropertyAccessor;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonMappingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.cfg.CoercionAction;
import com.fasterxml.jackson.databind.cfg.CoercionInputShape;
import com.fasterxml.jackson.databind.exc.InvalidDefinitionException;
import com.fasterxml.jackson.databind.type.LogicalType;
import com.fasterxml.jackson.databind.util.TokenBuffer;
import com.fasterxml.jackson.datatype.jdk8.Jdk8Module;
import com.fasterxml.jackson.datatype.jsr310.JavaTimeModule;
import java.io.IOException;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.List;
import java.util.Map;

/** Between the user's objects and what the wire can hold. Loaded only by tasks that need it. */
final class Json {
  private static final ObjectMapper MAPPER =
      new ObjectMapper()
          .registerModule(new JavaTimeModule())
          .registerModule(new Jdk8Module())
          // after the others: times of java.util and java.sql as exactly as those of java.time
          .registerModule(new OlderTimes())
          .registerModule(new Scalars())
          .registerModule(new Keys())
          .setVisibility(PropertyAccessor.FIELD, JsonAutoDetect.Visibility.PUBLIC_ONLY)
          .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false)
          .configure(DeserializationFeature.FAIL_ON_NUMBERS_FOR_ENUMS, true)
          .configure(DeserializationFeature.ADJUST_DATES_TO_CONTEXT_TIME_ZONE, false)
          .configure(SerializationFeature.WRITE_DATES_AS_TIMESTAMPS, false)
          .configure(SerializationFeature.WRITE_DURATIONS_AS_TIMESTAMPS, false);

  static {
    // a date would lose its time, and a time without an offset the offset
    for (Class<?> local : new Class<?>[] {LocalDate.class, LocalDateTime.class}) {
      MAPPER.configOverride(local).setFormat(JsonFormat.Value.forLeniency(false));
    }
    // Jackson would take an empty text for null
    MAPPER.coercionConfigDefaults().setCoercion(CoercionInputShape.EmptyString, CoercionAction.Fail);
    for (CoercionInputShape shape :
        new CoercionInputShape[] {CoercionInputShape.Boolean, CoercionInputShape.Integer, CoercionInputShape.Float}) {
      MAPPER.coercionConfigFor(LogicalType.Textual).setCoercion(shape, CoercionAction.Fail);
    }
  }

  private Json() {}

  /**
   * Returns a value that came over the wire as an object of a type.
   *
   * @throws IllegalArgumentException it does not fit, or would be another value; the message says where
   */
  static <T> T into(Object value, java.lang.reflect.Type type) {
    try {
      return MAPPER.convertValue(value, MAPPER.constructType(type));
    } catch (IllegalArgumentException error) {
      throw error.getCause() instanceof JsonProcessingException ? explained((JsonProcessingException) error.getCause()) : error;
    }
  }

  /** Returns an error with the path in the value, and without Jackson's place in a source that there is not. */
  private static IllegalArgumentException explained(JsonProcessingException cause) {
    List<JsonMappingException.Reference> steps =
        cause instanceof JsonMappingException ? ((JsonMappingException) cause).getPath() : List.of();
    StringBuilder path = new StringBuilder();
    for (JsonMappingException.Reference step : steps) {
      if (step.getFieldName() == null) {
        path.append('[').append(step.getIndex()).append(']');
      } else {
        path.append(path.length() == 0 ? "" : ".").append(step.getFieldName());
      }
    }
    String where = path.length() == 0 ? "" : path + ": ";
    // Jackson's own exceptions name that place in a trace; what a class of the task's has thrown is kept
    return new IllegalArgumentException(where + cause.getOriginalMessage(), cause.getCause());
  }

  /**
   * Returns a value that the wire can hold; plain ones as they are.
   *
   * @throws IllegalArgumentException there is no such form of it
   */
  static Object plain(Object value) {
    if (value == null
        || value instanceof String
        || value instanceof Boolean
        || value instanceof Long
        || value instanceof Integer
        || value instanceof Double
        || value instanceof BigDecimal
        || value instanceof BigInteger) {
      return value;
    }
    try (TokenBuffer buffer = new TokenBuffer(MAPPER, false)) {
      MAPPER.writeValue(buffer, value);
      JsonParser json = buffer.asParser();
      json.nextToken();
      return Plain.read(json);
    } catch (InvalidDefinitionException error) {
      if (String.valueOf(error.getOriginalMessage()).startsWith("No serializer found")) {
        throw new IllegalArgumentException(
            error.getType().getRawClass().getName() + " has no public field and no getter, so that nothing of it would "
                + "be sent; return a map, or give it some",
            error);
      }
      throw explained(error);
    } catch (JsonProcessingException error) {
      throw explained(error);
    } catch (IOException error) {
      throw new IllegalArgumentException(error);
    }
  }

  static String write(Map<String, Object> fields) {
    try {
      return MAPPER.writeValueAsString(fields);
    } catch (JsonProcessingException error) {
      throw new IllegalArgumentException(error);
    }
  }
}

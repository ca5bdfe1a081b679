package dev.polypod.sdk.internal;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.JsonDeserializer;
import com.fasterxml.jackson.databind.JsonSerializer;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.module.SimpleModule;
import java.io.IOException;
import java.sql.Time;
import java.sql.Timestamp;
import java.time.DateTimeException;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.util.Date;
import java.util.function.Function;

/**
 * Times of java.util and java.sql as texts: a point in time as RFC 3339, a date and a time of day as ISO 8601. Jackson's
 * own forms are milliseconds, which lose a Timestamp's nanoseconds.
 */
final class OlderTimes extends SimpleModule {
  private static final long serialVersionUID = 1L;

  OlderTimes() {
    super("polypod-older-times");
    add(Date.class, date -> date.toInstant().toString(), OlderTimes::date);
    add(Timestamp.class, stamp -> stamp.toInstant().toString(), text -> Timestamp.from(instant(text)));
    add(java.sql.Date.class, date -> date.toLocalDate().toString(), text -> java.sql.Date.valueOf(LocalDate.parse(text)));
    add(Time.class, time -> time.toLocalTime().toString(), text -> Time.valueOf(LocalTime.parse(text)));
  }

  private <T> void add(Class<T> type, Function<T, String> write, Function<String, T> read) {
    addSerializer(
        type,
        new JsonSerializer<T>() {
          @Override
          public void serialize(T value, JsonGenerator json, SerializerProvider provider) throws IOException {
            json.writeString(write.apply(value));
          }
        });
    addDeserializer(
        type,
        new JsonDeserializer<T>() {
          @Override
          public T deserialize(JsonParser json, DeserializationContext context) throws IOException {
            String text = json.hasToken(JsonToken.VALUE_STRING) ? json.getText() : null;
            if (text == null) {
              return context.reportInputMismatch(
                  type, "%s does not fit %s, which takes a text", json.getText(), type.getSimpleName());
            }
            try {
              return read.apply(text);
            } catch (DateTimeException error) {
              throw context.weirdStringException(text, type, error.getMessage());
            }
          }
        });
  }

  private static Instant instant(String text) {
    return OffsetDateTime.parse(text).toInstant();
  }

  private static Date date(String text) {
    Instant instant = instant(text);
    Date made = Date.from(instant);
    if (!made.toInstant().equals(instant)) {
      throw new DateTimeException("it has more than milliseconds; take a java.time.Instant");
    }
    return made;
  }
}

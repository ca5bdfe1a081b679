package dev.polypod.sdk.internal;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.BeanDescription;
import com.fasterxml.jackson.databind.DeserializationConfig;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.JsonMappingException;
import com.fasterxml.jackson.databind.JsonSerializer;
import com.fasterxml.jackson.databind.KeyDeserializer;
import com.fasterxml.jackson.databind.SerializationConfig;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.deser.BeanDeserializerModifier;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.ser.BeanSerializerModifier;
import java.io.IOException;
import java.util.Map;

/** Keys of maps are texts: one that would be another when it is written, or that has no text of its own, is refused. */
final class Keys extends SimpleModule {
  private static final long serialVersionUID = 1L;

  Keys() {
    super("polypod-keys");
    setDeserializerModifier(new Read());
    setSerializerModifier(new Written());
  }

  private static final class Read extends BeanDeserializerModifier {
    private static final long serialVersionUID = 1L;

    @Override
    public KeyDeserializer modifyKeyDeserializer(DeserializationConfig config, JavaType type, KeyDeserializer reader) {
      boolean number = Number.class.isAssignableFrom(type.getRawClass()) || type.isPrimitive();
      return number ? new NumberKeys(type.getRawClass(), reader) : reader;
    }
  }

  private static final class NumberKeys extends KeyDeserializer {
    private final Class<?> type;
    private final KeyDeserializer reader;

    NumberKeys(Class<?> type, KeyDeserializer reader) {
      this.type = type;
      this.reader = reader;
    }

    @Override
    public Object deserializeKey(String key, DeserializationContext context) throws IOException {
      Object made = reader.deserializeKey(key, context);
      String written = String.valueOf(made);
      // a float's 1 is 1.0
      return written.equals(key) || written.equals(key + ".0")
          ? made
          : context.reportInputMismatch(type, "the key \"%s\" would become %s", key, written);
    }
  }

  private static final class Written extends BeanSerializerModifier {
    private static final long serialVersionUID = 1L;

    @Override
    public JsonSerializer<?> modifyKeySerializer(
        SerializationConfig config, JavaType type, BeanDescription description, JsonSerializer<?> writer) {
      Class<?> raw = type.getRawClass();
      return raw != Object.class && !hasText(raw) ? new NoKey() : writer;
    }

    @Override
    public JsonSerializer<?> modifySerializer(
        SerializationConfig config, BeanDescription description, JsonSerializer<?> writer) {
      return Throwable.class.isAssignableFrom(description.getBeanClass()) ? new NoError() : writer;
    }

    private static boolean hasText(Class<?> type) {
      if (type.isArray() || Iterable.class.isAssignableFrom(type) || Map.class.isAssignableFrom(type)) {
        return false;
      }
      try {
        return type.isInterface() || type.getMethod("toString").getDeclaringClass() != Object.class;
      } catch (NoSuchMethodException impossible) {
        return false;
      }
    }
  }

  private static final class NoKey extends JsonSerializer<Object> {
    @Override
    public void serialize(Object key, JsonGenerator json, SerializerProvider provider) throws IOException {
      String name = key.getClass().getCanonicalName();
      throw JsonMappingException.from(json, "JSON has no key of the type " + name + "; make it a text");
    }
  }

  private static final class NoError extends JsonSerializer<Object> {
    @Override
    public void serialize(Object error, JsonGenerator json, SerializerProvider provider) throws IOException {
      throw JsonMappingException.from(
          json, "an exception (" + error.getClass().getName() + ") has no form in JSON; send its text, getMessage()");
    }
  }
}

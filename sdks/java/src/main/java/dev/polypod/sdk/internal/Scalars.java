package dev.polypod.sdk.internal;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.BeanDescription;
import com.fasterxml.jackson.databind.DeserializationConfig;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.JsonDeserializer;
import com.fasterxml.jackson.databind.JsonMappingException;
import com.fasterxml.jackson.databind.deser.BeanDeserializerBuilder;
import com.fasterxml.jackson.databind.deser.BeanDeserializerModifier;
import com.fasterxml.jackson.databind.deser.ValueInstantiator;
import com.fasterxml.jackson.databind.deser.std.DelegatingDeserializer;
import com.fasterxml.jackson.databind.deser.std.EnumDeserializer;
import com.fasterxml.jackson.databind.deser.std.FromStringDeserializer;
import com.fasterxml.jackson.databind.deser.std.PrimitiveArrayDeserializers;
import com.fasterxml.jackson.databind.deser.std.StdScalarDeserializer;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.type.LogicalType;
import java.io.IOException;
import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.time.LocalTime;
import java.time.Year;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;

/**
 * Numbers, booleans, characters and texts are read as what they are, at every depth: Jackson's own rules would make 0 of
 * null, true of 7 and "12" of 12.
 */
final class Scalars extends SimpleModule {
  private static final long serialVersionUID = 1L;

  Scalars() {
    super("polypod-scalars");
    number(byte.class, Byte.class, BigDecimal::byteValueExact);
    number(short.class, Short.class, BigDecimal::shortValueExact);
    number(int.class, Integer.class, BigDecimal::intValueExact);
    number(long.class, Long.class, BigDecimal::longValueExact);
    number(float.class, Float.class, Scalars::exactFloat);
    number(double.class, Double.class, Scalars::exactDouble);
    wrapped(BigInteger.class, BigDecimal::toBigIntegerExact);
    wrapped(BigDecimal.class, number -> number);
    wrapped(AtomicInteger.class, number -> new AtomicInteger(number.intValueExact()));
    wrapped(AtomicLong.class, number -> new AtomicLong(number.longValueExact()));
    optional(OptionalInt.class, OptionalInt.empty(), number -> OptionalInt.of(number.intValueExact()));
    optional(OptionalLong.class, OptionalLong.empty(), number -> OptionalLong.of(number.longValueExact()));
    optional(OptionalDouble.class, OptionalDouble.empty(), number -> OptionalDouble.of(exactDouble(number)));
    add(Number.class, new Reader<>(Number.class, null, "a number", Scalars::anyNumber));
    scalar(boolean.class, Boolean.class, "true or false", Scalars::truth);
    add(AtomicBoolean.class, new Reader<>(AtomicBoolean.class, null, "true or false", json -> {
      Boolean value = truth(json);
      return value == null ? null : new AtomicBoolean(value);
    }));
    scalar(char.class, Character.class, "a text of one character", Scalars::character);
    setDeserializerModifier(new Texts());
  }

  /** Reads one value; null if it is of another kind. */
  private interface Read<T> {
    T from(JsonParser json) throws IOException;
  }

  private <T> void number(Class<T> primitive, Class<T> boxed, Function<BigDecimal, T> exact) {
    scalar(primitive, boxed, "a number", json -> decimal(json, exact));
  }

  private <T> void scalar(Class<T> primitive, Class<T> boxed, String kind, Read<T> read) {
    addDeserializer(primitive, new Reader<>(primitive, null, kind, read));
    addDeserializer(boxed, new Reader<>(boxed, null, kind, read));
    Class<?> array = Array.newInstance(primitive, 0).getClass();
    add(array, new ArrayReader(array, new Reader<>(primitive, null, kind, read)));
  }

  private <T> void wrapped(Class<T> type, Function<BigDecimal, T> exact) {
    addDeserializer(type, new Reader<>(type, null, "a number", json -> decimal(json, exact)));
  }

  private <T> void optional(Class<T> type, T empty, Function<BigDecimal, T> exact) {
    addDeserializer(type, new Reader<>(type, empty, "a number", json -> decimal(json, exact)));
  }

  @SuppressWarnings("unchecked")
  private void add(Class<?> type, JsonDeserializer<?> reader) {
    addDeserializer((Class<Object>) type, (JsonDeserializer<Object>) reader);
  }

  private static <T> T decimal(JsonParser json, Function<BigDecimal, T> exact) throws IOException {
    Number number = anyNumber(json);
    return number == null ? null : exact.apply(toDecimal(number));
  }

  private static Number anyNumber(JsonParser json) throws IOException {
    return json.currentToken().isNumeric() ? json.getNumberValue() : null;
  }

  private static Boolean truth(JsonParser json) {
    return json.currentToken().isBoolean() ? json.currentToken() == JsonToken.VALUE_TRUE : null;
  }

  private static Character character(JsonParser json) throws IOException {
    String text = json.hasToken(JsonToken.VALUE_STRING) ? json.getText() : "";
    return text.length() == 1 ? text.charAt(0) : null;
  }

  private static BigDecimal toDecimal(Number number) {
    if (number instanceof BigDecimal) {
      return (BigDecimal) number;
    }
    // the shortest form: a float's 0.1 is 0.1
    return number instanceof BigInteger ? new BigDecimal((BigInteger) number) : new BigDecimal(number.toString());
  }

  private static double exactDouble(BigDecimal number) {
    return same(number.doubleValue(), number);
  }

  private static float exactFloat(BigDecimal number) {
    // 0.1 is what a float writes as 0.1
    return same(number.floatValue(), number);
  }

  private static <T extends Number> T same(T near, BigDecimal number) {
    if (Double.isInfinite(near.doubleValue()) || toDecimal(near).compareTo(number) != 0) {
      throw new ArithmeticException(number + " would become " + near);
    }
    return near;
  }

  private static String described(JsonParser json) throws IOException {
    switch (json.currentToken()) {
      case START_OBJECT:
        return "an object";
      case START_ARRAY:
        return "a list";
      case VALUE_STRING:
        String text = json.getText();
        return "the text \"" + (text.length() > 50 ? text.substring(0, 50) + "…" : text) + "\"";
      default:
        return json.getText();
    }
  }

  private static final class Reader<T> extends StdScalarDeserializer<T> {
    private static final long serialVersionUID = 1L;
    private final T ofNull;
    private final String kind;
    private final transient Read<T> read;

    Reader(Class<T> type, T ofNull, String kind, Read<T> read) {
      super(type);
      this.ofNull = ofNull;
      this.kind = kind;
      this.read = read;
    }

    @Override
    public T deserialize(JsonParser json, DeserializationContext context) throws IOException {
      try {
        T value = read.from(json);
        if (value != null) {
          return value;
        }
      } catch (ArithmeticException error) {
        String seen = json.getText();
        String detail = String.valueOf(error.getMessage());
        boolean said = detail.contains("would become");
        return context.reportInputMismatch(
            this, "%s", said ? detail : seen + " does not fit " + _valueClass.getSimpleName() + " exactly");
      }
      return context.reportInputMismatch(
          this, "%s does not fit %s, which takes %s", described(json), _valueClass.getSimpleName(), kind);
    }

    @Override
    public T getNullValue(DeserializationContext context) throws JsonMappingException {
      if (_valueClass.isPrimitive()) {
        context.reportInputMismatch(this, "null does not fit %s", _valueClass);
      }
      return ofNull;
    }

    @Override
    public Object getAbsentValue(DeserializationContext context) throws JsonMappingException {
      if (_valueClass.isPrimitive()) {
        context.reportInputMismatch(this, "it is missing, and %s has no null", _valueClass);
      }
      return ofNull;
    }
  }

  /** Reads an array of primitives item by item; bytes come as base64, too, and characters as a text. */
  private static final class ArrayReader extends StdScalarDeserializer<Object> {
    private static final long serialVersionUID = 1L;
    private final JsonDeserializer<?> items;

    ArrayReader(Class<?> type, JsonDeserializer<?> items) {
      super(type);
      this.items = items;
    }

    @Override
    public Object deserialize(JsonParser json, DeserializationContext context) throws IOException {
      Class<?> item = _valueClass.getComponentType();
      if (!json.isExpectedStartArrayToken()) {
        boolean asText = item == byte.class || item == char.class;
        if (!asText || json.currentToken().isNumeric() || json.currentToken().isBoolean()) {
          return context.reportInputMismatch(
              this, "%s does not fit %s, which takes a list", described(json), _valueClass.getSimpleName());
        }
        return PrimitiveArrayDeserializers.forType(item).deserialize(json, context);
      }
      List<Object> read = new ArrayList<>();
      while (json.nextToken() != JsonToken.END_ARRAY) {
        try {
          boolean none = json.hasToken(JsonToken.VALUE_NULL);
          read.add(none ? items.getNullValue(context) : items.deserialize(json, context));
        } catch (IOException error) {
          throw JsonMappingException.wrapWithPath(error, read, read.size());
        }
      }
      Object array = Array.newInstance(item, read.size());
      for (int place = 0; place < read.size(); place++) {
        Array.set(array, place, read.get(place));
      }
      return array;
    }
  }

  /** What is written as a text is read from a text only, and an object must have somewhere to go. */
  private static final class Texts extends BeanDeserializerModifier {
    private static final long serialVersionUID = 1L;

    @Override
    public JsonDeserializer<?> modifyDeserializer(
        DeserializationConfig config, BeanDescription description, JsonDeserializer<?> reader) {
      Class<?> type = description.getBeanClass();
      boolean time = reader.logicalType() == LogicalType.DateTime;
      boolean text = type == String.class || CharSequence.class.isAssignableFrom(type);
      return time || text || reader instanceof FromStringDeserializer ? new TextOnly(reader, type, time) : reader;
    }

    @Override
    public JsonDeserializer<?> modifyEnumDeserializer(
        DeserializationConfig config, JavaType type, BeanDescription description, JsonDeserializer<?> reader) {
      boolean byName = reader instanceof EnumDeserializer && description.findJsonValueAccessor() == null;
      return byName ? new TextOnly(reader, type.getRawClass(), false) : reader;
    }

    @Override
    public BeanDeserializerBuilder updateBuilder(
        DeserializationConfig config, BeanDescription description, BeanDeserializerBuilder builder) {
      ValueInstantiator maker = builder.getValueInstantiator();
      boolean bound = builder.getProperties().hasNext() || builder.getAnySetter() != null;
      boolean whole =
          maker.canCreateFromObjectWith() || maker.canCreateUsingDelegate() || maker.canCreateFromString()
              || maker.canCreateFromInt() || maker.canCreateFromLong() || maker.canCreateFromDouble()
              || maker.canCreateFromBoolean() || maker.canCreateUsingArrayDelegate();
      if (!bound && !whole && hasFields(description.getBeanClass())) {
        throw new IllegalArgumentException(
            description.getBeanClass().getName() + " has no public field and no setter, so that nothing would arrive");
      }
      return builder;
    }

    private static boolean hasFields(Class<?> type) {
      for (Class<?> at = type; at != null; at = at.getSuperclass()) {
        for (Field field : at.getDeclaredFields()) {
          if (!Modifier.isStatic(field.getModifiers())) {
            return true;
          }
        }
      }
      return false;
    }
  }

  private static final class TextOnly extends DelegatingDeserializer {
    private static final long serialVersionUID = 1L;
    private final Class<?> type;
    private final boolean time;

    TextOnly(JsonDeserializer<?> reader, Class<?> type, boolean time) {
      super(reader);
      this.type = type;
      this.time = time;
    }

    @Override
    protected JsonDeserializer<?> newDelegatingInstance(JsonDeserializer<?> reader) {
      return new TextOnly(reader, type, time);
    }

    @Override
    public Object deserialize(JsonParser json, DeserializationContext context) throws IOException {
      if (!json.hasToken(JsonToken.VALUE_STRING) && !json.hasToken(JsonToken.VALUE_EMBEDDED_OBJECT)) {
        return context.reportInputMismatch(
            type, "%s does not fit %s, which takes a text", described(json), type.getSimpleName());
      }
      // Jackson would take digits for seconds, and leave out spaces and a date
      String text = json.hasToken(JsonToken.VALUE_STRING) && !CharSequence.class.isAssignableFrom(type) ? json.getText() : "";
      boolean seconds = time && type != Year.class && text.matches("[-+]?[0-9]+(\\.[0-9]+)?");
      if (seconds || !text.equals(text.strip()) || type == LocalTime.class && text.contains("T")) {
        return context.reportInputMismatch(
            type, "%s does not fit %s%s", described(json), type.getSimpleName(), time ? ", which takes a date or a time" : "");
      }
      return super.deserialize(json, context);
    }
  }
}

package dev.polypod.sdk.internal;

import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePacker;
import org.msgpack.core.MessageUnpacker;

/** Frames: a 4-byte big-endian length, then a msgpack array of id, body and, at times, a third element. */
final class Wire {
  private static final int MAX_FRAME = 1 << 30;
  private static final BigInteger MAX_UNSIGNED = BigInteger.ONE.shiftLeft(64);

  private Wire() {}

  /** Something in a value that the wire cannot hold, and where in the value it is. */
  static final class Unsendable extends IOException {
    private final String path;
    private final String problem;

    Unsendable(String problem) {
      this("", problem);
    }

    private Unsendable(String path, String problem) {
      super(path.isEmpty() ? problem : path + ": " + problem);
      this.path = path;
      this.problem = problem;
    }

    /** Returns the same, one level up. */
    Unsendable in(String step) {
      return new Unsendable(step + (path.isEmpty() || path.startsWith("[") ? "" : ".") + path, problem);
    }
  }

  static final class Frame {
    final long id;
    final Map<String, Object> body;
    final Map<String, Object> error;

    Frame(long id, Map<String, Object> body, Map<String, Object> error) {
      this.id = id;
      this.body = body;
      this.error = error;
    }
  }

  /** Reads one frame; null at the end of the stream. */
  static Frame read(DataInputStream in) throws IOException {
    int size;
    try {
      size = in.readInt();
    } catch (EOFException end) {
      return null;
    }
    if (size < 0 || size > MAX_FRAME) {
      throw new IOException("a frame of " + Integer.toUnsignedLong(size) + " bytes is over the limit of " + MAX_FRAME);
    }
    byte[] payload = new byte[size];
    in.readFully(payload);
    try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(payload)) {
      Object value = unpack(unpacker);
      if (!(value instanceof List) || ((List<?>) value).size() < 2 || !(((List<?>) value).get(0) instanceof Long)) {
        throw new IOException("a frame is not a msgpack array of an id and a body");
      }
      List<?> parts = (List<?>) value;
      return new Frame((Long) parts.get(0), map(parts.get(1)), parts.size() > 2 ? map(parts.get(2)) : null);
    }
  }

  @SuppressWarnings("unchecked")
  static Map<String, Object> map(Object value) {
    return value instanceof Map ? (Map<String, Object>) value : null;
  }

  private static Object unpack(MessageUnpacker in) throws IOException {
    switch (in.getNextFormat().getValueType()) {
      case NIL:
        in.unpackNil();
        return null;
      case BOOLEAN:
        return in.unpackBoolean();
      case INTEGER:
        BigInteger number = in.unpackBigInteger();
        return number.bitLength() < 64 ? (Object) number.longValueExact() : number;
      case FLOAT:
        return in.unpackDouble();
      case STRING:
        return in.unpackString();
      case BINARY:
        return in.readPayload(in.unpackBinaryHeader());
      case ARRAY:
        int length = in.unpackArrayHeader();
        List<Object> list = new ArrayList<>(Math.min(length, 1024));
        for (int i = 0; i < length; i++) {
          list.add(unpack(in));
        }
        return list;
      case MAP:
        int entries = in.unpackMapHeader();
        Map<String, Object> map = new LinkedHashMap<>();
        for (int i = 0; i < entries; i++) {
          map.put(String.valueOf(unpack(in)), unpack(in));
        }
        return map;
      default:
        return in.unpackTimestamp();
    }
  }

  /** Encodes a frame, length included. */
  static byte[] encode(Object... parts) throws IOException {
    try (MessageBufferPacker out = MessagePack.newDefaultBufferPacker()) {
      out.packArrayHeader(parts.length);
      for (Object part : parts) {
        pack(out, part);
      }
      byte[] payload = out.toByteArray();
      return ByteBuffer.allocate(4 + payload.length).putInt(payload.length).put(payload).array();
    }
  }

  private static void pack(MessagePacker out, Object value) throws IOException {
    if (value == null) {
      out.packNil();
    } else if (value instanceof String) {
      text(out, (String) value);
    } else if (value instanceof Boolean) {
      out.packBoolean((Boolean) value);
    } else if (value instanceof BigInteger) {
      BigInteger number = (BigInteger) value;
      if (number.bitLength() < 64 || (number.signum() > 0 && number.compareTo(MAX_UNSIGNED) < 0)) {
        out.packBigInteger(number);
      } else {
        throw new Unsendable("the number " + number + " does not fit into 64 bits; return it as text");
      }
    } else if (value instanceof BigDecimal) {
      BigDecimal number = (BigDecimal) value;
      if (number.scale() <= 0 && number.precision() - number.scale() <= 20) {
        pack(out, number.toBigIntegerExact());
      } else {
        out.packDouble(exact(number));
      }
    } else if (value instanceof Long || value instanceof Integer || value instanceof Short || value instanceof Byte) {
      out.packLong(((Number) value).longValue());
    } else if (value instanceof Double || value instanceof Float) {
      // by its shortest form: a float's 0.1 is 0.1
      double number = Double.parseDouble(value.toString());
      if (Double.isNaN(number) || Double.isInfinite(number)) {
        throw new Unsendable(number + " is not a number that JSON can represent");
      }
      out.packDouble(number);
    } else if (value instanceof Instant) {
      out.packString(value.toString());
    } else if (value instanceof Map) {
      Map<?, ?> map = (Map<?, ?>) value;
      out.packMapHeader(map.size());
      for (Map.Entry<?, ?> entry : map.entrySet()) {
        String key = String.valueOf(entry.getKey());
        text(out, key);
        try {
          pack(out, entry.getValue());
        } catch (Unsendable error) {
          throw error.in(key);
        }
      }
    } else if (value instanceof Iterable) {
      List<Object> items = new ArrayList<>();
      ((Iterable<?>) value).forEach(items::add);
      out.packArrayHeader(items.size());
      for (int place = 0; place < items.size(); place++) {
        try {
          pack(out, items.get(place));
        } catch (Unsendable error) {
          throw error.in("[" + place + "]");
        }
      }
    } else {
      String name = value.getClass().getCanonicalName();
      throw new Unsendable("JSON has no " + name + "; encode the value as text, such as base64");
    }
  }

  /** Returns a message with U+FFFD for halves of surrogate pairs: how a task ended must be readable. */
  static Object whole(Object value) {
    if (value instanceof String) {
      return LogSink.whole((String) value);
    }
    if (value instanceof Map) {
      Map<String, Object> map = new LinkedHashMap<>();
      ((Map<?, ?>) value).forEach((key, item) -> map.put(LogSink.whole(String.valueOf(key)), whole(item)));
      return map;
    }
    if (value instanceof List) {
      List<Object> items = new ArrayList<>();
      ((List<?>) value).forEach(item -> items.add(whole(item)));
      return items;
    }
    return value;
  }

  private static void text(MessagePacker out, String text) throws IOException {
    // the packer would write a question mark
    if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
      throw new Unsendable("an unpaired surrogate is not valid text");
    }
    out.packString(text);
  }

  /** Returns a decimal as a double, if that is the same number: its shortest form is. */
  private static double exact(BigDecimal number) throws IOException {
    double near = number.doubleValue();
    if (Double.isInfinite(near) || BigDecimal.valueOf(near).compareTo(number) != 0) {
      throw new Unsendable("the number " + number + " does not fit into 64 bits without being rounded; return it as text");
    }
    return near;
  }
}

package dev.polypod.sdk.internal;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonMappingException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads maps, lists and scalars; Jackson's own reader would keep the last of several entries of one key. */
final class Plain {
  private Plain() {}

  static Object read(JsonParser json) throws IOException {
    switch (json.currentToken()) {
      case START_OBJECT:
        return map(json);
      case START_ARRAY:
        return list(json);
      case VALUE_STRING:
        return json.getText();
      case VALUE_TRUE:
        return true;
      case VALUE_FALSE:
        return false;
      case VALUE_NULL:
        return null;
      case VALUE_EMBEDDED_OBJECT:
        return json.getEmbeddedObject();
      default:
        return json.getNumberValue();
    }
  }

  private static Map<String, Object> map(JsonParser json) throws IOException {
    Map<String, Object> read = new LinkedHashMap<>();
    while (json.nextToken() != JsonToken.END_OBJECT) {
      String name = json.currentName();
      if (read.containsKey(name)) {
        throw JsonMappingException.from(json, "two keys would be sent as \"" + name + "\"");
      }
      json.nextToken();
      try {
        read.put(name, read(json));
      } catch (JsonMappingException error) {
        throw JsonMappingException.wrapWithPath(error, read, name);
      }
    }
    return read;
  }

  private static List<Object> list(JsonParser json) throws IOException {
    List<Object> read = new ArrayList<>();
    while (json.nextToken() != JsonToken.END_ARRAY) {
      try {
        read.add(read(json));
      } catch (JsonMappingException error) {
        throw JsonMappingException.wrapWithPath(error, read, read.size());
      }
    }
    return read;
  }
}

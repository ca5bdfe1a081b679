package dev.polypod.sdk.internal;

import dev.polypod.sdk.ArgName;
import dev.polypod.sdk.Bundle;
import dev.polypod.sdk.Client;
import dev.polypod.sdk.Context;
import dev.polypod.sdk.InputTask;
import dev.polypod.sdk.Task;
import dev.polypod.sdk.TaskInput;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Prints, a line for each class, what it is filled with, or why it is refused. */
public final class Bindings {
  public static class Setters implements TaskInput {
    private String region;

    @ArgName("row_limit")
    private int limit;

    public Setters setRegion(String region) {
      this.region = region;
      return this;
    }

    public void setLimit(int limit) {
      this.limit = limit;
    }

    public String toString() {
      return region + " " + limit;
    }
  }

  public record Components(String region, @ArgName("row_limit") int limit) implements TaskInput {}

  static class Hidden implements TaskInput {
    public String region;

    private Hidden() {}

    public String toString() {
      return region;
    }
  }

  public static class Private implements TaskInput {
    private String region;
  }

  public static class Final implements TaskInput {
    public final String region = null;
  }

  public class Inner implements TaskInput {
    public String region;
  }

  public static class NeedsArguments implements TaskInput {
    public String region;

    public NeedsArguments(String region) {}
  }

  public abstract static class Base<I extends TaskInput> implements InputTask<I> {
    public void execute(Context context, Client client, I input) {}
  }

  static class OfSetters implements InputTask<Setters> { public void execute(Context a, Client b, Setters c) {} }
  static class OfComponents implements InputTask<Components> { public void execute(Context a, Client b, Components c) {} }
  private static class OfHidden implements InputTask<Hidden> { public void execute(Context a, Client b, Hidden c) {} }
  static class OfPrivate implements InputTask<Private> { public void execute(Context a, Client b, Private c) {} }
  static class OfFinal implements InputTask<Final> { public void execute(Context a, Client b, Final c) {} }
  static class OfInner implements InputTask<Inner> { public void execute(Context a, Client b, Inner c) {} }
  static class OfNeedsArguments implements InputTask<NeedsArguments> {
    public void execute(Context a, Client b, NeedsArguments c) {}
  }
  class InnerTask implements Task { public void execute(Context a, Client b) {} }
  record RecordTask(String x) implements Task { public void execute(Context a, Client b) {} }

  public static void main(String[] none) {
    List<Map<String, Object>> both = List.of(literal("region", "uk"), literal("row_limit", 3));
    Object[][] cases = {
      {OfSetters.class, both}, {OfComponents.class, both}, {OfHidden.class, List.of(literal("Region", "uk"))},
      {OfPrivate.class, both}, {OfFinal.class, both}, {OfInner.class, both}, {OfNeedsArguments.class, both},
      {InnerTask.class, null}, {RecordTask.class, null}, {OfComponents.class, List.of(literal("region", "uk"))},
      {OfComponents.class, List.of(literal("all", Map.of("region", "uk", "limit", 4)))},
      {OfSetters.class, null}, {OfSetters.class, List.of(literal("row_limit", "3"))},
    };
    for (Object[] one : cases) {
      Class<?> task = (Class<?>) one[0];
      String told;
      try {
        new Bundle().register("d", "t", task);
        told = String.valueOf(Inputs.bind(Inputs.inputClass(task), (List<?>) one[1], false, null));
      } catch (Exception error) {
        told = error.getMessage();
      }
      System.out.println(task.getSimpleName() + ": " + told);
    }
    for (Object value : new ArrayList<>(List.of(0.1f, List.of(0.1f, new float[] {0.1f}), new Private(), Map.of("a", new Object())))) {
      String told;
      try {
        byte[] frame = Wire.encode(1L, Map.of("value", Json.plain(value)));
        told = String.valueOf(Wire.read(new java.io.DataInputStream(new java.io.ByteArrayInputStream(frame))).body);
      } catch (Exception error) {
        told = error.getMessage();
      }
      System.out.println("sends " + told);
    }
  }

  private static Map<String, Object> literal(String name, Object value) {
    return Map.of("kind", "literal", "name", name, "value", value);
  }
}

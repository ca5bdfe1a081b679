package dev.polypod.sdk.internal;

import dev.polypod.sdk.Bundle;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.jar.Attributes;
import java.util.jar.Manifest;

/** The tasks of a bundle as an attribute of a jar's manifest, so that others need not run the jar to know them. */
public final class TaskList {
  private static final Attributes.Name TASKS = new Attributes.Name("Polypod-Tasks");

  private TaskList() {}

  /** Writes a manifest that a build tool merges into the jar's own. */
  public static void write(Bundle bundle, Path file) throws IOException {
    Manifest manifest = new Manifest();
    manifest.getMainAttributes().put(Attributes.Name.MANIFEST_VERSION, "1.0");
    Map<String, Object> tasks = new LinkedHashMap<>(bundle.tasks());
    manifest.getMainAttributes().put(TASKS, Json.write(tasks));
    Files.createDirectories(file.toAbsolutePath().getParent());
    try (OutputStream out = Files.newOutputStream(file)) {
      manifest.write(out);
    }
  }
}

package dev.polypod.sdk;

/** Marks a class whose public fields, setters or record components are a task's arguments; names match ignoring case and underscores. */
public interface TaskInput {}

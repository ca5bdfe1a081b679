package dev.polypod.sdk;

/** A task that takes arguments: the public fields, setters or record components of {@code I} receive them by name. */
public interface InputTask<I extends TaskInput> {
  /**
   * Does the task's work; see {@link Task#execute}.
   *
   * @throws Exception to fail
   */
  void execute(Context context, Client client, I input) throws Exception;
}

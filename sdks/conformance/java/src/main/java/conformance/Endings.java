package conformance;

import dev.polypod.sdk.Client;
import dev.polypod.sdk.Context;
import dev.polypod.sdk.RetryException;
import dev.polypod.sdk.Task;
import java.time.Duration;
import java.util.List;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Tasks that end in odd ways. */
final class Endings {
  private static final Logger log = LoggerFactory.getLogger("task");

  private Endings() {}

  /** Ignores SIGTERM at first: it still reads a variable and returns a value, so it succeeds. */
  public static class FinishLate implements Task {
    public void execute(Context context, Client client) {
      log.info("waiting");
      while (!context.isCancelled()) {
        Thread.onSpinWait();
      }
      client.setXCom(List.of("late", client.getVariable("conformance_in")));
    }
  }

  /** Asks for another try in a text whose character 500 is an emoji, and which has half of one. */
  public static class HalfAnEmoji implements Task {
    public void execute(Context context, Client client) {
      throw new RetryException(Duration.ofMillis(1500), "\uD83D " + "x".repeat(497) + "\uD83D\uDE00 more");
    }
  }

  /** Fails with an exception whose own methods throw, and leaves a thread behind. */
  public static class BrokenException implements Task {
    public void execute(Context context, Client client) {
      new Thread(
              () -> {
                try {
                  Thread.sleep(600_000);
                } catch (InterruptedException ended) {
                  log.info("interrupted");
                }
              })
          .start();
      throw new IllegalStateException() {
        @Override
        public String getMessage() {
          throw new AssertionError("no message");
        }
      };
    }
  }
}

package dev.polypod.sdk.internal;

import dev.polypod.sdk.ApiException;
import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.Socket;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BooleanSupplier;

/** The comm socket: many requests in flight, each answered by its id. */
final class Comm implements AutoCloseable {
  private static final long TERMINAL_TIMEOUT_SECONDS = 30;

  private final Socket socket;
  private final OutputStream out;
  private final AtomicLong nextId = new AtomicLong(1);
  private final Map<Long, CompletableFuture<Wire.Frame>> pending = new ConcurrentHashMap<>();
  private final CompletableFuture<Wire.Frame> first = new CompletableFuture<>();
  private final BooleanSupplier cancelled;
  private volatile boolean closed;

  /** Opens the socket; cancelled says that the task is being ended, so that an interrupt is no wish to give up calls. */
  Comm(Socket socket, BooleanSupplier cancelled) throws IOException {
    this.socket = socket;
    this.cancelled = cancelled;
    this.out = socket.getOutputStream();
    Thread reader = new Thread(this::read, "polypod-comm");
    reader.setDaemon(true);
    reader.start();
  }

  private void read() {
    IOException problem = new IOException("the supervisor closed the comm socket");
    try (DataInputStream in = new DataInputStream(new BufferedInputStream(socket.getInputStream(), 1 << 16))) {
      Wire.Frame frame;
      while ((frame = Wire.read(in)) != null) {
        if (!first.isDone()) {
          first.complete(frame);
          continue;
        }
        CompletableFuture<Wire.Frame> waiting = pending.remove(frame.id);
        if (waiting != null) {
          waiting.complete(frame);
        }
      }
    } catch (IOException error) {
      problem = error;
    } catch (Throwable error) {
      // bytes that are no frame, or a class that is missing: those who wait must not wait for ever
      problem = new IOException("a message of the supervisor cannot be read: " + LogSink.text(error), error);
    }
    closed = true;
    first.completeExceptionally(problem);
    for (CompletableFuture<Wire.Frame> waiting : pending.values()) {
      waiting.completeExceptionally(problem);
    }
  }

  /** Waits for the supervisor's own frame. */
  Wire.Frame first() throws IOException, InterruptedException {
    return await(first);
  }

  /** Sends a request and waits for its answer's body. */
  Map<String, Object> request(Map<String, Object> body) {
    long id = nextId.getAndIncrement();
    CompletableFuture<Wire.Frame> answer = new CompletableFuture<>();
    byte[] encoded;
    try {
      encoded = Wire.encode(id, body);
    } catch (IOException error) {
      throw new ApiException("INVALID_VALUE", body.get("type") + ": " + error.getMessage());
    }
    pending.put(id, answer);
    try {
      send(encoded);
      if (closed) {
        answer.completeExceptionally(new IOException("the supervisor closed the comm socket"));
      }
      Wire.Frame frame = awaitServed(answer);
      Map<String, Object> failure = failureOf(frame);
      if (failure != null) {
        throw failure(body, failure);
      }
      return frame.body;
    } catch (IOException error) {
      throw new ApiException("CONNECTION_LOST", body.get("type") + ": " + error.getMessage());
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw new ApiException("INTERRUPTED", body.get("type") + " was interrupted: the task is being ended");
    } finally {
      pending.remove(id);
    }
  }

  /** Sends what answers a question of the Dag processor's, and waits until it was taken. */
  void tell(Map<String, Object> body) throws IOException, InterruptedException {
    long id = nextId.getAndIncrement();
    CompletableFuture<Wire.Frame> answer = new CompletableFuture<>();
    pending.put(id, answer);
    send(Wire.encode(id, body));
    if (closed) {
      answer.completeExceptionally(new IOException("the supervisor closed the comm socket"));
    }
    try {
      answer.get(TERMINAL_TIMEOUT_SECONDS, TimeUnit.SECONDS);
    } catch (ExecutionException error) {
      // it has what it asked for
      return;
    } catch (TimeoutException error) {
      throw new IOException("the answer was not taken", error);
    }
  }

  /** Returns the error that a frame carries, as its third element or as its body; null if it carries none. */
  static Map<String, Object> failureOf(Wire.Frame frame) {
    if (frame.error != null) {
      return frame.error;
    }
    return frame.body != null && "ErrorResponse".equals(frame.body.get("type")) ? frame.body : null;
  }

  private static ApiException failure(Map<String, Object> request, Map<String, Object> failure) {
    String type = String.valueOf(failure.get("error"));
    Map<String, Object> detail = Wire.map(failure.get("detail"));
    Object message = detail == null ? null : detail.get("message");
    return new ApiException(type, request.get("type") + ": " + type + (message == null ? "" : ": " + message));
  }

  private synchronized void send(byte[] frame) throws IOException {
    out.write(frame);
    out.flush();
  }

  private static Wire.Frame await(CompletableFuture<Wire.Frame> future) throws IOException, InterruptedException {
    try {
      return future.get();
    } catch (ExecutionException error) {
      throw error.getCause() instanceof IOException ? (IOException) error.getCause() : new IOException(error.getCause());
    }
  }

  /** Waits for an answer, through the interrupt by which a task that is being ended learns of it: calls are still served. */
  private Wire.Frame awaitServed(CompletableFuture<Wire.Frame> answer) throws IOException, InterruptedException {
    boolean interrupted = false;
    try {
      while (true) {
        try {
          return await(answer);
        } catch (InterruptedException signal) {
          if (!cancelled.getAsBoolean()) {
            throw signal;
          }
          interrupted = true;
        }
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /** Answers frame 0 with how the task ended. A supervisor that is gone must not hold the JVM: there is a limit. */
  void finish(byte[] frame) throws IOException {
    if (closed) {
      throw new IOException("the supervisor closed the comm socket before the task ended");
    }
    FutureTask<Void> sent =
        new FutureTask<>(
            () -> {
              send(frame);
              return null;
            });
    // a thread of its own: the task may have left the common pool full of its jobs
    Thread sender = new Thread(sent, "polypod-finish");
    sender.setDaemon(true);
    sender.start();
    long limit = System.nanoTime() + TimeUnit.SECONDS.toNanos(TERMINAL_TIMEOUT_SECONDS);
    while (true) {
      try {
        sent.get(Math.max(0, limit - System.nanoTime()), TimeUnit.NANOSECONDS);
        return;
      } catch (InterruptedException signal) {
        // the task has ended: there is nothing left to interrupt
      } catch (ExecutionException | TimeoutException error) {
        throw new IOException("the task's end could not be sent", error);
      }
    }
  }

  @Override
  public void close() throws IOException {
    socket.close();
  }
}

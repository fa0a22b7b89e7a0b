package dev.turnout.worker;

import dev.turnout.spi.Batch;
import java.util.concurrent.atomic.AtomicBoolean;

/** A PREDICT or PING that waits for a model thread. Whoever claims it answers it: a thread to run it, or a CANCEL. */
final class Work {
    final Connection connection;
    final long id;
    /** The inputs; null for a PING. */
    final Batch inputs;
    /** On {@link System#nanoTime}; meaningless unless {@link #hasDeadline}. */
    final long deadlineNanos;

    final boolean hasDeadline;
    /** Bytes of the received payload, given back to the queue's budget once answered. */
    final long bytes;

    private final AtomicBoolean claimed = new AtomicBoolean();

    private Work(Connection connection, Header header, Batch inputs) {
        this.connection = connection;
        this.id = header.id();
        this.inputs = inputs;
        this.bytes = header.length();
        this.hasDeadline = header.deadlineMs() != Header.NO_DEADLINE;
        this.deadlineNanos = System.nanoTime() + Integer.toUnsignedLong(header.deadlineMs()) * 1_000_000L;
    }

    static Work predict(Connection connection, Header header, Batch inputs) {
        return new Work(connection, header, inputs);
    }

    static Work ping(Connection connection, Header header) {
        return new Work(connection, header, null);
    }

    boolean isPing() {
        return inputs == null;
    }

    /** Returns true to the one caller who now has to answer. */
    boolean claim() {
        return claimed.compareAndSet(false, true);
    }

    boolean expired() {
        return hasDeadline && System.nanoTime() - deadlineNanos >= 0;
    }
}

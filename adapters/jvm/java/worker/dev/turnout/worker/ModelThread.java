package dev.turnout.worker;

import dev.turnout.spi.InvalidInput;
import java.nio.ByteBuffer;
import java.util.LinkedHashSet;
import java.util.Set;

/**
 * Runs predictions one after another. Answers of quick models are gathered and go out together, at the latest
 * {@link #HOLD_NANOS} after the first: under load one write then answers all that one read brought.
 */
final class ModelThread implements Runnable {
    private static final long HOLD_NANOS = 100_000;
    private static final long QUICK_NANOS = 50_000;

    private final Worker worker;
    private final WorkQueue queue;
    private final ServedModel.Runner runner;
    private final InputCheck check;
    private final Set<Connection> unflushed = new LinkedHashSet<>();
    private long firstUnflushed;
    private long smoothedNanos;

    ModelThread(Worker worker, ServedModel.Runner runner, InputCheck check) {
        this.worker = worker;
        this.queue = worker.queue();
        this.runner = runner;
        this.check = check;
    }

    @Override
    public void run() {
        try {
            while (true) {
                if (!unflushed.isEmpty() && mustFlush()) {
                    flush();
                }
                Work work = queue.take();
                if (work == null) {
                    break;
                }
                if (work.claim()) {
                    answer(work);
                }
            }
        } catch (InterruptedException error) {
            System.err.println("a model thread was interrupted");
        } finally {
            flush();
            worker.threadEnded();
        }
    }

    private boolean mustFlush() {
        return queue.size() == 0
                || smoothedNanos > QUICK_NANOS
                || System.nanoTime() - firstUnflushed > HOLD_NANOS;
    }

    private void flush() {
        unflushed.forEach(Connection::flush);
        unflushed.clear();
    }

    private void answer(Work work) {
        ByteBuffer frame;
        if (work.isPing()) {
            frame = Answers.pong(work.id, queue);
        } else if (work.expired()) {
            queue.expired.incrementAndGet();
            frame = Answers.error(work.id, ErrorCode.DEADLINE, "the deadline passed before it started");
        } else {
            queue.started.incrementAndGet();
            long start = System.nanoTime();
            frame = predict(work);
            smoothedNanos += (System.nanoTime() - start - smoothedNanos) >> 3;
        }
        work.connection.done(work);
        work.connection.add(frame);
        if (unflushed.isEmpty()) {
            firstUnflushed = System.nanoTime();
        }
        unflushed.add(work.connection);
    }

    private ByteBuffer predict(Work work) {
        try {
            return Payload.frame(FrameType.RESULT, work.id, runner.predict(check.fit(work.inputs)));
        } catch (InvalidInput error) {
            return Answers.error(work.id, ErrorCode.INVALID_INPUT, error.getMessage());
        } catch (Throwable error) {
            // One bad row must not end the thread, whatever it made the model throw.
            return Answers.error(work.id, ErrorCode.MODEL_FAULT, Reasons.of(error));
        }
    }
}

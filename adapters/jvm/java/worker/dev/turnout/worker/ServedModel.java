package dev.turnout.worker;

import dev.turnout.spi.Batch;

/** A loaded model of any kind. */
public interface ServedModel {
    Description description();

    /**
     * Returns what one model thread calls; called once for each thread.
     *
     * @throws Exception when it cannot be made
     */
    Runner runner() throws Exception;

    /** Gives everything back. */
    void close() throws Exception;

    /** Used by one thread at a time. */
    @FunctionalInterface
    interface Runner {
        /** Answers a batch whose tensors fit the model's inputs. */
        Batch predict(Batch inputs) throws Exception;
    }
}

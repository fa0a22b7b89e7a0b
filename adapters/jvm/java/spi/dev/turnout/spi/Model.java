package dev.turnout.spi;

import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * A model that Turnout serves. It needs a public constructor without parameters.
 *
 * <p>{@link #load} is called once, before all else, and from one thread. {@link #predict} is called from one thread,
 * or, with the option {@code cpus} above 1, from that many at once.
 */
public interface Model extends AutoCloseable {
    /**
     * Reads what the model needs.
     *
     * @param directory the version's folder, where the files beside the jar lie
     * @param options the version's options; lists and mappings are JSON text
     * @throws Exception with a message for operators when the version cannot be served
     */
    void load(Path directory, Map<String, String> options) throws Exception;

    /** The tensors that {@link #predict} takes, known once loaded. Axis 0 is rows. */
    List<TensorSpec> inputs();

    /** The tensors that {@link #predict} answers, known once loaded. */
    List<TensorSpec> outputs();

    /**
     * Answers one batch. Its inputs fit {@link #inputs}: each is there, with its datatype, rank and fixed axes.
     *
     * @throws InvalidInput when the caller is at fault; anything else thrown is a fault of the model
     */
    Batch predict(Batch inputs) throws Exception;

    /** Gives everything back. Called once, with no prediction under way. */
    @Override
    default void close() throws IOException {}
}

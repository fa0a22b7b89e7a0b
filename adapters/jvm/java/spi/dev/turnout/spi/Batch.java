package dev.turnout.spi;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/** Named tensors, in order: the inputs or the outputs of one call. */
public final class Batch {
    private final Map<String, Tensor> tensors;

    public Batch(Map<String, Tensor> tensors) {
        this.tensors = Collections.unmodifiableMap(new LinkedHashMap<>(tensors));
    }

    /** A batch of one tensor; {@link #and} adds more. */
    public static Batch of(String name, Tensor tensor) {
        return new Batch(Map.of(name, tensor));
    }

    /** Returns a batch with one more tensor. */
    public Batch and(String name, Tensor tensor) {
        Map<String, Tensor> more = new LinkedHashMap<>(tensors);
        more.put(name, tensor);
        return new Batch(more);
    }

    /** Returns a tensor, or null when there is none of this name. */
    public Tensor get(String name) {
        return tensors.get(name);
    }

    public Set<String> names() {
        return tensors.keySet();
    }

    public Map<String, Tensor> tensors() {
        return tensors;
    }

    /** Length of axis 0 of the first tensor; 0 when there is none. */
    public int rows() {
        return tensors.isEmpty() ? 0 : tensors.values().iterator().next().rows();
    }
}

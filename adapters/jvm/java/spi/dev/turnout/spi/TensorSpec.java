package dev.turnout.spi;

import java.util.Arrays;

/** A declared tensor. In its shape -1 is any length. Nullable: elements of BYTES may be missing. */
public final class TensorSpec {
    private final String name;
    private final Datatype datatype;
    private final long[] shape;
    private final boolean nullable;

    private TensorSpec(String name, Datatype datatype, long[] shape, boolean nullable) {
        this.name = name;
        this.datatype = datatype;
        this.shape = shape.clone();
        this.nullable = nullable;
    }

    /** Declares a tensor, for example {@code TensorSpec.of("x", Datatype.FP64, -1, 30)}. */
    public static TensorSpec of(String name, Datatype datatype, long... shape) {
        return new TensorSpec(name, datatype, shape, false);
    }

    /** Returns the same tensor, with elements that may be missing. */
    public TensorSpec nullable() {
        return new TensorSpec(name, datatype, shape, true);
    }

    public String name() {
        return name;
    }

    public Datatype datatype() {
        return datatype;
    }

    public long[] shape() {
        return shape.clone();
    }

    public boolean isNullable() {
        return nullable;
    }

    @Override
    public String toString() {
        return name + " " + datatype + " " + Arrays.toString(shape);
    }
}

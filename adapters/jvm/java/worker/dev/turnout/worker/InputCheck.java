package dev.turnout.worker;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.InvalidInput;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Holds inputs against a model's signature, so that no model sees what it did not declare. */
final class InputCheck {
    private final List<TensorSpec> specs;
    private final Set<String> known = new HashSet<>();

    InputCheck(Description description) {
        this.specs = description.inputs();
        specs.forEach(spec -> known.add(spec.name()));
        known.addAll(description.ignored());
    }

    /** Returns the model's inputs, each in its declared rank. */
    Batch fit(Batch given) {
        Map<String, Tensor> fitted = new LinkedHashMap<>(specs.size() * 2);
        int rows = -1;
        for (TensorSpec spec : specs) {
            Tensor tensor = given.get(spec.name());
            if (tensor == null) {
                throw new InvalidInput(naming(spec) + "missing");
            }
            Tensor fit = fit(spec, tensor);
            if (spec.datatype() == Datatype.BYTES && !spec.isNullable()) {
                refuseMissing(spec, fit);
            }
            if (fit.rank() > 0) {
                if (rows >= 0 && fit.rows() != rows) {
                    throw new InvalidInput(naming(spec) + "has " + fit.rows() + " rows, others have " + rows);
                }
                rows = fit.rows();
            }
            fitted.put(spec.name(), fit);
        }
        if (fitted.size() < given.names().size()) {
            refuseUnknown(given);
        }
        return new Batch(fitted);
    }

    private static Tensor fit(TensorSpec spec, Tensor tensor) {
        if (tensor.datatype() != spec.datatype()) {
            throw new InvalidInput(
                    naming(spec) + "datatype must be " + spec.datatype() + ", got " + tensor.datatype());
        }
        long[] wanted = spec.shape();
        if (wanted.length == 1 && tensor.rank() == 2 && tensor.axis(1) == 1) {
            return fit(spec, tensor.reshaped(tensor.axis(0)));
        }
        if (wanted.length == 2 && wanted[1] == 1 && tensor.rank() == 1) {
            return fit(spec, tensor.reshaped(tensor.axis(0), 1));
        }
        if (tensor.rank() != wanted.length) {
            throw new InvalidInput(naming(spec) + "rank must be " + wanted.length + ", got shape "
                    + Arrays.toString(tensor.shape()));
        }
        for (int axis = 0; axis < wanted.length; axis++) {
            if (wanted[axis] != -1 && wanted[axis] != tensor.axis(axis)) {
                throw new InvalidInput(
                        naming(spec) + "axis " + axis + " must be " + wanted[axis] + ", got " + tensor.axis(axis));
            }
        }
        return tensor;
    }

    private static void refuseMissing(TensorSpec spec, Tensor tensor) {
        for (int at = 0; at < tensor.size(); at++) {
            if (tensor.isMissing(at)) {
                throw new InvalidInput(naming(spec) + "element " + at + " is missing; this model takes none");
            }
        }
    }

    private void refuseUnknown(Batch given) {
        for (String name : given.names()) {
            if (!known.contains(name) && !name.startsWith(":")) {
                throw new InvalidInput("tensor '" + name + "': unknown");
            }
        }
    }

    private static String naming(TensorSpec spec) {
        return "tensor '" + spec.name() + "': ";
    }
}

package com.acme;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.Model;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Answers what it was given: `in_TYPE` as `out_TYPE` with the same bytes, and as `made_TYPE` built anew. */
public final class Echo implements Model {
    private final List<TensorSpec> inputs = new ArrayList<>();
    private final List<TensorSpec> outputs = new ArrayList<>();

    @Override
    public void load(Path directory, Map<String, String> options) {
        for (Datatype datatype : Datatype.values()) {
            String name = datatype.name().toLowerCase(Locale.ROOT);
            TensorSpec spec = TensorSpec.of("in_" + name, datatype, -1);
            inputs.add(datatype == Datatype.BYTES ? spec.nullable() : spec);
            outputs.add(TensorSpec.of("out_" + name, datatype, -1));
            outputs.add(TensorSpec.of("made_" + name, datatype, -1));
        }
    }

    @Override
    public List<TensorSpec> inputs() {
        return inputs;
    }

    @Override
    public List<TensorSpec> outputs() {
        return outputs;
    }

    @Override
    public Batch predict(Batch batch) {
        Map<String, Tensor> answer = new LinkedHashMap<>();
        batch.tensors().forEach((name, tensor) -> {
            answer.put(name.replaceFirst("in_", "out_"), tensor);
            answer.put(name.replaceFirst("in_", "made_"), made(tensor));
        });
        return new Batch(answer);
    }

    private static Tensor made(Tensor tensor) {
        Datatype datatype = tensor.datatype();
        int size = tensor.size();
        if (datatype.isInteger()) {
            return Tensor.ofLongs(datatype, tensor.longs(), tensor.shape());
        }
        if (datatype == Datatype.FP64) {
            return Tensor.ofDoubles(tensor.doubles());
        }
        if (datatype.isFloat()) {
            float[] values = new float[size];
            for (int at = 0; at < size; at++) {
                values[at] = (float) tensor.doubleAt(at);
            }
            return datatype == Datatype.FP32 ? Tensor.ofFloats(values) : Tensor.ofHalves(datatype, values);
        }
        if (datatype == Datatype.BOOL) {
            boolean[] values = new boolean[size];
            for (int at = 0; at < size; at++) {
                values[at] = tensor.booleanAt(at);
            }
            return Tensor.ofBooleans(values);
        }
        byte[][] values = new byte[size][];
        for (int at = 0; at < size; at++) {
            values[at] = tensor.bytesAt(at);
        }
        return Tensor.ofBytes(values);
    }
}

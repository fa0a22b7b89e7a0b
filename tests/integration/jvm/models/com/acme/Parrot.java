package com.acme;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.InvalidInput;
import dev.turnout.spi.Model;
import dev.turnout.spi.TensorSpec;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** Takes and answers the tensors that its option `tensors` lists: `name DATATYPE axis,axis`, one after another. */
public final class Parrot implements Model {
    private final List<TensorSpec> specs = new ArrayList<>();
    private String complaint;

    @Override
    public void load(Path directory, Map<String, String> options) {
        complaint = options.get("complaint");
        String[] words = options.get("tensors").split(" ");
        for (int at = 0; at + 2 < words.length; at += 3) {
            long[] shape = words[at + 2].equals("scalar")
                    ? new long[0]
                    : Arrays.stream(words[at + 2].split(",")).mapToLong(Long::parseLong).toArray();
            specs.add(TensorSpec.of(words[at], Datatype.valueOf(words[at + 1]), shape).nullable());
        }
    }

    @Override
    public List<TensorSpec> inputs() {
        return specs;
    }

    @Override
    public List<TensorSpec> outputs() {
        return specs;
    }

    @Override
    public Batch predict(Batch batch) {
        if (complaint != null) {
            throw new InvalidInput(complaint);
        }
        return batch;
    }
}

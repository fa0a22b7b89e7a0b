package dev.turnout.worker;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What the parent asks to load. `inputs` and `outputs` are null when they are not declared; `samples` are example
 * rows by input name. `trusted`: code in the artifact may run.
 */
public record LoadRequest(
        Path directory,
        Path artifact,
        Map<String, String> options,
        List<TensorSpec> inputs,
        List<TensorSpec> outputs,
        Map<String, Tensor> samples,
        Settings settings) {
    private static final String SAMPLE = "sample.";

    /** Reads the payload of LOAD. */
    static LoadRequest read(Batch payload, Settings settings) throws LoadFailed {
        Path directory = Path.of(text(payload, "directory"));
        Map<String, String> options = new LinkedHashMap<>();
        for (String[] row : table(payload, "options", 2)) {
            options.put(row[0], row[1]);
        }
        Map<String, Tensor> samples = new LinkedHashMap<>();
        payload.tensors().forEach((name, tensor) -> {
            if (name.startsWith(SAMPLE)) {
                samples.put(name.substring(SAMPLE.length()), tensor);
            }
        });
        return new LoadRequest(
                directory,
                directory.resolve(text(payload, "artifact")).normalize(),
                options,
                payload.get("inputs") == null ? null : specs(payload, "inputs"),
                payload.get("outputs") == null ? null : specs(payload, "outputs"),
                samples,
                settings);
    }

    private static List<TensorSpec> specs(Batch payload, String name) throws LoadFailed {
        List<TensorSpec> specs = new ArrayList<>();
        for (String[] row : table(payload, name, 3)) {
            try {
                long[] shape = row[2].isEmpty()
                        ? new long[0]
                        : Arrays.stream(row[2].split(",")).mapToLong(Long::parseLong).toArray();
                specs.add(TensorSpec.of(row[0], Datatype.valueOf(row[1]), shape));
            } catch (IllegalArgumentException error) {
                throw new LoadFailed("LOAD: " + name + ": " + String.join(" ", row) + " is no tensor", error);
            }
        }
        return specs;
    }

    private static String text(Batch payload, String name) throws LoadFailed {
        Tensor tensor = payload.get(name);
        if (tensor == null || tensor.datatype() != Datatype.BYTES || tensor.size() != 1 || tensor.textAt(0) == null) {
            throw new LoadFailed("LOAD: " + name + " must be one text");
        }
        return tensor.textAt(0);
    }

    private static List<String[]> table(Batch payload, String name, int width) throws LoadFailed {
        Tensor tensor = payload.get(name);
        List<String[]> rows = new ArrayList<>();
        if (tensor == null) {
            return rows;
        }
        if (tensor.datatype() != Datatype.BYTES || tensor.rank() != 2 || tensor.axis(1) != width) {
            throw new LoadFailed("LOAD: " + name + " must be BYTES [n, " + width + "], got " + tensor);
        }
        for (int row = 0; row < tensor.rows(); row++) {
            String[] cells = new String[width];
            for (int cell = 0; cell < width; cell++) {
                cells[cell] = tensor.textAt(row * width + cell);
            }
            rows.add(cells);
        }
        return rows;
    }
}

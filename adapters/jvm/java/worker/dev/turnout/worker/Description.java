package dev.turnout.worker;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/** What a loaded model takes and answers, and what its metadata says. */
public record Description(
        List<TensorSpec> inputs, List<TensorSpec> outputs, List<String> ignored, Map<String, String> properties) {

    /** The payload of LOADED. */
    Batch payload() {
        List<String[]> takes = new ArrayList<>();
        for (TensorSpec spec : inputs) {
            takes.add(new String[] {spec.name(), spec.datatype().name(), shape(spec), spec.isNullable() ? "1" : "0"});
        }
        List<String[]> answers = new ArrayList<>();
        for (TensorSpec spec : outputs) {
            answers.add(new String[] {spec.name(), spec.datatype().name(), shape(spec)});
        }
        List<String[]> facts = new ArrayList<>();
        properties.forEach((key, value) -> facts.add(new String[] {key, value}));
        return Batch.of("inputs", table(takes, 4))
                .and("outputs", table(answers, 3))
                .and("ignored", Tensor.ofText(ignored.toArray(String[]::new)))
                .and("properties", table(facts, 2));
    }

    private static String shape(TensorSpec spec) {
        return Arrays.stream(spec.shape()).mapToObj(Long::toString).collect(Collectors.joining(","));
    }

    private static Tensor table(List<String[]> rows, int width) {
        String[] cells = rows.stream().flatMap(Arrays::stream).toArray(String[]::new);
        return Tensor.ofText(cells, rows.size(), width);
    }
}

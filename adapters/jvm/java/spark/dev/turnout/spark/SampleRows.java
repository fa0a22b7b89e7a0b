package dev.turnout.spark;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.Tensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Rows to try a pipeline on: those of the golden file, or made up from the columns' types. */
final class SampleRows {
    static final int GENERATED = 24;
    /** The first rows are such as a pipeline is likely to take; later ones have NULLs and values never seen. */
    private static final int ORDINARY = 12;

    private static final double[] ODD_NUMBERS = {Double.NaN, 0, -0.0, 1, -1, 1e6, -1e-6, 12345.678};
    private static final String[] ODD_TEXTS = {null, "", "a text with some words, and a number 42", "\u00e9\0x"};

    private SampleRows() {}

    /** Returns the samples when they hold every input, else made up rows. */
    static Batch of(List<Column> inputs, Map<String, Tensor> samples, Stages stages) {
        Map<String, Tensor> rows = new LinkedHashMap<>();
        for (Column input : inputs) {
            Tensor sample = samples.get(input.name());
            if (sample == null || sample.rows() == 0 || sample.datatype() != input.datatype()) {
                return generated(inputs, stages);
            }
            rows.put(input.name(), sample);
        }
        return new Batch(rows);
    }

    private static Batch generated(List<Column> inputs, Stages stages) {
        Random random = new Random(7);
        Map<String, Tensor> rows = new LinkedHashMap<>();
        for (Column input : inputs) {
            rows.put(input.name(), generated(input, stages, random));
        }
        return new Batch(rows);
    }

    private static Tensor generated(Column input, Stages stages, Random random) {
        Datatype datatype = input.datatype();
        if (input.kind() == Kind.VECTOR) {
            int width = Math.max(input.width(), 1);
            return Tensor.ofDoubles(random.doubles((long) GENERATED * width, -2, 2).toArray(), GENERATED, width);
        }
        if (datatype == Datatype.BYTES) {
            return Tensor.ofText(texts(stages.labels(input.name()), random));
        }
        if (datatype == Datatype.BOOL) {
            boolean[] values = new boolean[GENERATED];
            for (int row = 0; row < GENERATED; row++) {
                values[row] = random.nextBoolean();
            }
            return Tensor.ofBooleans(values);
        }
        if (datatype.isInteger()) {
            return Tensor.ofLongs(datatype, random.longs(GENERATED, 0, 100).toArray());
        }
        double[] values = new double[GENERATED];
        for (int row = 0; row < GENERATED; row++) {
            values[row] = row < ORDINARY ? 100 * random.nextDouble() : ODD_NUMBERS[random.nextInt(ODD_NUMBERS.length)];
        }
        return datatype == Datatype.FP64 ? Tensor.ofDoubles(values) : Tensor.ofFloats(narrow(values));
    }

    private static String[] texts(List<String> labels, Random random) {
        List<String> ordinary = labels.isEmpty() ? List.of("one two three", "Two, three; four") : labels;
        List<String> texts = new ArrayList<>();
        for (int row = 0; row < GENERATED; row++) {
            texts.add(row < ORDINARY
                    ? ordinary.get(random.nextInt(ordinary.size()))
                    : ODD_TEXTS[random.nextInt(ODD_TEXTS.length)]);
        }
        return texts.toArray(String[]::new);
    }

    private static float[] narrow(double[] values) {
        float[] narrow = new float[values.length];
        for (int at = 0; at < values.length; at++) {
            narrow[at] = (float) values[at];
        }
        return narrow;
    }
}

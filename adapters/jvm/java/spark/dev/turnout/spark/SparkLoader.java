package dev.turnout.spark;

import dev.turnout.spi.Batch;
import dev.turnout.spi.InvalidInput;
import dev.turnout.spi.Tensor;
import dev.turnout.worker.Description;
import dev.turnout.worker.LoadFailed;
import dev.turnout.worker.LoadRequest;
import dev.turnout.worker.ModelLoader;
import dev.turnout.worker.Reasons;
import dev.turnout.worker.ServedModel;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.SparkSession;

/** Loads a saved PipelineModel: folded where it is row-wise and folding changes nothing, else by `transform`. */
public final class SparkLoader implements ModelLoader {
    private static final int WARM_FOLDED = 6_000;
    private static final int WARM_TRANSFORMED = 8;
    private static final long WARM_NANOS = 3_000_000_000L;
    /** The option `binary` is a list of names, as JSON text. */
    private static final Pattern QUOTED = Pattern.compile("\"([^\"]*)\"");

    @Override
    public ServedModel load(LoadRequest request) throws Exception {
        Columns.check(request.inputs() == null ? List.of() : request.inputs());
        SparkSession spark = Session.start(request.settings().scratch());
        PipelineModel model = read(request);
        Pipeline pipeline = Pipeline.of(spark, model, request, binary(request));
        Batch rows = SampleRows.of(pipeline.inputs(), request.samples(), pipeline.stages());
        String culprit = Culprits.find(pipeline.analysed());
        Transforming transforming = new Transforming(pipeline, culprit == null);
        Map<String, String> properties = new LinkedHashMap<>();
        properties.put("kind", "spark");
        properties.put("engine", "spark " + spark.version() + ", java " + Runtime.version());
        Folding folding = null;
        if (culprit == null) {
            try {
                folding = new Folding(pipeline);
                culprit = difference(pipeline, rows, folding, transforming, properties);
            } catch (UnsupportedOperationException error) {
                culprit = error.getMessage();
            } catch (RuntimeException error) {
                culprit = "Catalyst does not compile it: " + Reasons.brief(error);
            }
        }
        boolean folded = culprit == null;
        properties.put("mode", folded ? "folded" : "transform");
        if (!folded) {
            properties.put("slow", "true");
            properties.put("slow_reason", culprit);
        }
        Rows way = folded ? folding : transforming;
        Pipeline known = pipeline.withOutputs(widths(pipeline, rows, way));
        SparkModel served = new SparkModel(known, way, description(known, properties));
        warm(inputs -> served.answer(way, inputs), rows, folded ? WARM_FOLDED : WARM_TRANSFORMED);
        System.gc();
        return served;
    }

    private static PipelineModel read(LoadRequest request) throws LoadFailed {
        try {
            return PipelineModel.load(request.artifact().toUri().toString());
        } catch (Exception error) {
            throw new LoadFailed("Spark cannot read the saved pipeline: " + Reasons.of(error), error);
        }
    }

    private static List<String> binary(LoadRequest request) {
        List<String> names = new ArrayList<>();
        Matcher quoted = QUOTED.matcher(request.options().getOrDefault("binary", ""));
        while (quoted.find()) {
            names.add(quoted.group(1));
        }
        return names;
    }

    /** Returns where folding changes answers; null where it does not. */
    private static String difference(
            Pipeline pipeline, Batch rows, Rows folding, Rows transforming, Map<String, String> properties) {
        Parity parity = new Parity(pipeline.outputs());
        String difference = parity.difference(rows, folding, transforming);
        int count = Math.min(rows.rows(), Parity.MAX_ROWS);
        properties.put("parity", count + " rows, largest difference " + parity.worst());
        return difference;
    }

    /** Returns the outputs with the lengths of vectors as some row shows them. */
    private static List<Output> widths(Pipeline pipeline, Batch rows, Rows way) {
        List<Output> outputs = new ArrayList<>(pipeline.outputs());
        boolean open = outputs.stream().anyMatch(output -> output.kind() == Kind.VECTOR && output.width() < 0);
        for (int row = 0; open && row < Math.min(rows.rows(), SampleRows.GENERATED); row++) {
            Object[] values;
            try {
                values = way.answer(rows, row, row + 1).get(0);
            } catch (Exception error) {
                continue; // a row that the pipeline refuses tells nothing
            }
            for (int at = 0; values != null && at < values.length; at++) {
                if (values[at] instanceof Vector vector && outputs.get(at).width() < 0) {
                    outputs.set(at, outputs.get(at).withWidth(vector.size()));
                }
            }
            open = outputs.stream().anyMatch(output -> output.kind() == Kind.VECTOR && output.width() < 0);
        }
        return outputs;
    }

    private static Description description(Pipeline pipeline, Map<String, String> properties) {
        return new Description(
                pipeline.inputs().stream().map(Column::spec).toList(),
                pipeline.outputs().stream().map(Output::spec).toList(),
                pipeline.ignored(),
                properties);
    }

    /** Answers rows for a while, so that the first callers meet compiled code. */
    private static void warm(ServedModel.Runner runner, Batch rows, int times) {
        long until = System.nanoTime() + WARM_NANOS;
        int count = rows.rows();
        for (int at = 0; at < times && System.nanoTime() - until < 0; at++) {
            try {
                runner.predict(row(rows, at % count));
            } catch (Exception error) {
                continue; // samples may hold rows that the pipeline refuses
            }
        }
    }

    private static Batch row(Batch rows, int at) {
        Map<String, Tensor> one = new LinkedHashMap<>();
        rows.tensors().forEach((name, tensor) -> one.put(name, tensor.row(at)));
        return new Batch(one);
    }

    /** A loaded pipeline. Each thread answers by a folding of its own. */
    private static final class SparkModel implements ServedModel {
        private final Pipeline pipeline;
        private final Description description;
        private final Rows first;
        private boolean taken;

        SparkModel(Pipeline pipeline, Rows first, Description description) {
            this.pipeline = pipeline;
            this.first = first;
            this.description = description;
        }

        @Override
        public Description description() {
            return description;
        }

        @Override
        public Runner runner() throws LoadFailed {
            Rows way = taken && first instanceof Folding ? new Folding(pipeline) : first;
            taken = true;
            return inputs -> answer(way, inputs);
        }

        private Batch answer(Rows way, Batch inputs) throws Exception {
            List<Object[]> rows = way.answer(inputs, 0, inputs.rows());
            int dropped = rows.indexOf(null);
            if (dropped >= 0) {
                throw new InvalidInput(naming(way.droppedBy()) + "row " + dropped + ": the pipeline drops it");
            }
            Map<String, Tensor> answer = new LinkedHashMap<>();
            List<Output> outputs = pipeline.outputs();
            for (int at = 0; at < outputs.size(); at++) {
                answer.put(outputs.get(at).name(), outputs.get(at).tensor(rows, at));
            }
            return new Batch(answer);
        }

        private static String naming(List<String> inputs) {
            return inputs.isEmpty() ? "" : "tensor '" + String.join("', '", inputs) + "': ";
        }

        @Override
        public void close() {
            pipeline.spark().stop();
        }
    }
}

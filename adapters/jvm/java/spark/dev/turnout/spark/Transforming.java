package dev.turnout.spark;

import dev.turnout.spi.Batch;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;

/** Answers rows by Spark's own `transform`, a frame for each call. Slow, and right by definition. */
final class Transforming implements Rows {
    /** Marks rows, to find them again whatever the pipeline does to their order and number. */
    private static final String MARK = "__turnout_row";

    private final Pipeline pipeline;
    private final StructType schema;
    private final List<String> names;
    /** Whether a pipeline that loses the mark at least keeps rows in their order. */
    private final boolean keepsOrder;

    Transforming(Pipeline pipeline, boolean keepsOrder) {
        this.pipeline = pipeline;
        this.schema = pipeline.schema().add(MARK, DataTypes.LongType, false);
        this.names = pipeline.outputs().stream().map(Output::name).toList();
        this.keepsOrder = keepsOrder;
    }

    @Override
    public List<Object[]> answer(Batch inputs, int from, int to) throws Exception {
        Dataset<Row> answered =
                pipeline.model().transform(pipeline.spark().createDataFrame(rows(inputs, from, to), schema));
        if (Arrays.asList(answered.columns()).contains(MARK)) {
            return marked(answered, from, to);
        }
        if (to - from == 1 || keepsOrder) {
            List<Object[]> answers = taken(Pipeline.select(answered, names).collectAsList());
            if (answers.size() == to - from) {
                return answers;
            }
            if (to - from == 1 && answers.isEmpty()) {
                return Collections.singletonList(null);
            }
        }
        return oneByOne(inputs, from, to);
    }

    @Override
    public List<String> droppedBy() {
        return List.of();
    }

    private List<Object[]> marked(Dataset<Row> answered, int from, int to) throws Exception {
        List<String> wanted = new ArrayList<>(names);
        wanted.add(MARK);
        List<Object[]> answers = new ArrayList<>(Arrays.asList(new Object[to - from][]));
        for (Row row : Pipeline.select(answered, wanted).collectAsList()) {
            int at = (int) row.getLong(names.size()) - from;
            if (answers.set(at, taken(row)) != null) {
                throw new IllegalStateException("row " + (from + at) + " is answered more than once");
            }
        }
        return answers;
    }

    private List<Object[]> oneByOne(Batch inputs, int from, int to) throws Exception {
        if (to - from == 1) {
            throw new IllegalStateException("row " + from + " is answered more than once");
        }
        List<Object[]> answers = new ArrayList<>();
        for (int at = from; at < to; at++) {
            answers.addAll(answer(inputs, at, at + 1));
        }
        return answers;
    }

    private List<Row> rows(Batch inputs, int from, int to) {
        List<Row> rows = new ArrayList<>();
        for (int at = from; at < to; at++) {
            Object[] values = new Object[schema.size()];
            for (Column column : pipeline.inputs()) {
                Object value = column.kind().read(column.name(), inputs.get(column.name()), at);
                values[schema.fieldIndex(column.name())] = column.kind().external(value);
            }
            values[values.length - 1] = (long) at;
            rows.add(RowFactory.create(values));
        }
        return rows;
    }

    private List<Object[]> taken(List<Row> rows) {
        List<Object[]> answers = new ArrayList<>();
        rows.forEach(row -> answers.add(taken(row)));
        return answers;
    }

    private Object[] taken(Row row) {
        Object[] values = new Object[names.size()];
        for (int at = 0; at < values.length; at++) {
            values[at] = pipeline.outputs().get(at).kind().taken(row.get(at));
        }
        return values;
    }
}

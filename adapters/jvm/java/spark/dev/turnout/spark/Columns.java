package dev.turnout.spark;

import dev.turnout.spi.Datatype;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import dev.turnout.worker.LoadFailed;
import dev.turnout.worker.LoadRequest;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/** The raw columns of the frames that a pipeline is given: declared ones first, then those that its stages name. */
final class Columns {
    private final Map<String, Column> byName = new LinkedHashMap<>();

    /** Spark tells no column from another by case alone. */
    private final Set<String> folded = new HashSet<>();

    private Columns() {}

    /** Puts together what is declared, what samples show, and what stages let guess; `idle` columns are left out. */
    static Columns of(LoadRequest request, Stages stages, Set<String> idle, Collection<String> binary)
            throws LoadFailed {
        Map<String, Column> raw = stages.raw();
        Columns columns = new Columns();
        for (TensorSpec spec : request.inputs() == null ? List.<TensorSpec>of() : request.inputs()) {
            columns.add(idle, of(spec.name(), spec.datatype(), spec.shape(), raw, request.samples(), binary));
        }
        for (Map.Entry<String, Tensor> sample : request.samples().entrySet()) {
            Tensor tensor = sample.getValue();
            columns.add(
                    idle, of(sample.getKey(), tensor.datatype(), tensor.shape(), raw, request.samples(), binary));
        }
        for (Column guessed : raw.values()) {
            if (guessed != null) {
                columns.add(idle, guessed);
            }
        }
        return columns;
    }

    /** Refuses declared columns that Spark cannot have, before a session is started for them. */
    static void check(List<TensorSpec> declared) throws LoadFailed {
        for (TensorSpec spec : declared) {
            of(spec.name(), spec.datatype(), spec.shape(), Map.of(), Map.of(), List.of());
        }
    }

    static StructType schema(List<Column> columns) {
        return new StructType(columns.stream().map(Column::field).toArray(StructField[]::new));
    }

    List<Column> all() {
        return List.copyOf(byName.values());
    }

    List<Column> named(Set<String> names) {
        return byName.values().stream().filter(column -> names.contains(column.name())).toList();
    }

    /** A signature as one line of `model.yaml`. */
    static String yaml(List<Column> columns) {
        return columns.stream().map(Column::yaml).collect(Collectors.joining(", ", "signature: {inputs: [", "]}"));
    }

    static String names(List<Column> columns) {
        return columns.stream().map(column -> "'" + column.name() + "'").collect(Collectors.joining(", "));
    }

    private void add(Set<String> idle, Column column) {
        if (!idle.contains(column.name()) && folded.add(column.name().toLowerCase(Locale.ROOT))) {
            byName.put(column.name(), column);
        }
    }

    private static Column of(
            String name,
            Datatype datatype,
            long[] shape,
            Map<String, Column> raw,
            Map<String, Tensor> samples,
            Collection<String> binary)
            throws LoadFailed {
        Column guessed = raw.get(name);
        boolean wide = shape.length == 2 && shape[1] != 1;
        boolean single = shape.length == 2 && guessed != null && guessed.kind() == Kind.VECTOR;
        if (wide || single) {
            if (datatype != Datatype.FP64) {
                throw new LoadFailed("input '" + name + "': a Vector column is FP64, not " + datatype);
            }
            return Column.vector(name, width(name, shape, samples), true);
        }
        if (shape.length < 1 || shape.length > 2) {
            throw new LoadFailed("input '" + name + "': a column has shape [-1], or [-1, k] for vectors");
        }
        return Column.scalar(name, datatype, binary.contains(name), true);
    }

    private static int width(String name, long[] shape, Map<String, Tensor> samples) {
        Tensor sample = samples.get(name);
        boolean told = shape[1] >= 0 || sample == null || sample.rank() != 2;
        return (int) (told ? shape[1] : sample.axis(1));
    }

    static List<String> without(List<Column> columns, List<Column> used, Set<String> idle) {
        List<String> names = new ArrayList<>(idle);
        columns.stream().filter(column -> !used.contains(column)).forEach(column -> names.add(column.name()));
        return names;
    }
}

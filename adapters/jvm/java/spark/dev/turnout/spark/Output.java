package dev.turnout.spark;

import dev.turnout.spi.Datatype;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import dev.turnout.worker.LoadFailed;
import java.util.List;
import java.util.Map;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.types.StructField;

/** A column that is answered. `width` is the length of a vector, -1 when it is not known. */
record Output(String name, Kind kind, Datatype datatype, int width) {
    /** Datatypes that hold the values of a wider column when they are declared so. */
    private static final Map<Datatype, Kind> UNSIGNED =
            Map.of(Datatype.UINT8, Kind.SHORT, Datatype.UINT16, Kind.INTEGER, Datatype.UINT32, Kind.LONG);

    /** `declared` is null where nothing is; `prediction`: what a stage predicts is FP64 unless declared otherwise. */
    static Output of(StructField field, TensorSpec declared, boolean prediction, int width) throws LoadFailed {
        Kind kind = Kind.ofColumn(field.dataType());
        if (kind == null) {
            throw new LoadFailed("output '" + field.name() + "': no tensor carries a column of type "
                    + field.dataType().simpleString() + "; cast it in a SQLTransformer");
        }
        Datatype datatype = kind.datatype;
        if (declared == null ? prediction : declared.datatype() == Datatype.FP64) {
            datatype = kind == Kind.INTEGER && prediction ? Datatype.FP64 : datatype;
        } else if (declared != null && UNSIGNED.get(declared.datatype()) == kind) {
            datatype = declared.datatype();
        }
        boolean told = width < 0 && kind == Kind.VECTOR && declared != null && declared.shape().length == 2;
        return new Output(field.name(), kind, datatype, told ? (int) declared.shape()[1] : width);
    }

    TensorSpec spec() {
        return kind == Kind.VECTOR ? TensorSpec.of(name, datatype, -1, width) : TensorSpec.of(name, datatype, -1);
    }

    Output withWidth(int found) {
        return new Output(name, kind, datatype, found);
    }

    /**
     * Builds the tensor from this column's values, as {@link Kind#take} gives them.
     *
     * @throws IllegalStateException for a value that the datatype cannot hold
     */
    Tensor tensor(List<Object[]> rows, int ordinal) {
        if (kind == Kind.VECTOR) {
            return vectors(rows, ordinal);
        }
        int count = rows.size();
        if (datatype == Datatype.BYTES) {
            byte[][] values = new byte[count][];
            for (int row = 0; row < count; row++) {
                values[row] = (byte[]) rows.get(row)[ordinal];
            }
            return Tensor.ofBytes(values);
        }
        if (datatype.isFloat()) {
            return floats(rows, ordinal);
        }
        if (datatype == Datatype.BOOL) {
            boolean[] values = new boolean[count];
            for (int row = 0; row < count; row++) {
                values[row] = (Boolean) present(rows, row, ordinal);
            }
            return Tensor.ofBooleans(values);
        }
        long[] values = new long[count];
        for (int row = 0; row < count; row++) {
            values[row] = ((Number) present(rows, row, ordinal)).longValue();
        }
        try {
            return Tensor.ofLongs(datatype, values);
        } catch (IllegalArgumentException error) {
            throw new IllegalStateException("output '" + name + "': " + error.getMessage(), error);
        }
    }

    private Tensor floats(List<Object[]> rows, int ordinal) {
        int count = rows.size();
        if (datatype == Datatype.FP32) {
            float[] values = new float[count];
            for (int row = 0; row < count; row++) {
                Object value = rows.get(row)[ordinal];
                values[row] = value == null ? Float.NaN : (Float) value;
            }
            return Tensor.ofFloats(values);
        }
        double[] values = new double[count];
        for (int row = 0; row < count; row++) {
            Object value = rows.get(row)[ordinal];
            values[row] = value == null ? Double.NaN : ((Number) value).doubleValue();
        }
        return Tensor.ofDoubles(values);
    }

    private Tensor vectors(List<Object[]> rows, int ordinal) {
        int count = rows.size();
        int length = width >= 0 || count == 0 ? Math.max(width, 0) : vector(rows, 0, ordinal).size();
        double[] values = new double[count * length];
        for (int row = 0; row < count; row++) {
            Vector vector = vector(rows, row, ordinal);
            if (vector.size() != length) {
                throw new IllegalStateException("output '" + name + "': row " + row + " has " + vector.size()
                        + " values, " + length + " expected");
            }
            System.arraycopy(vector.toArray(), 0, values, row * length, length);
        }
        return Tensor.ofDoubles(values, count, length);
    }

    private Vector vector(List<Object[]> rows, int row, int ordinal) {
        return (Vector) present(rows, row, ordinal);
    }

    private Object present(List<Object[]> rows, int row, int ordinal) {
        Object value = rows.get(row)[ordinal];
        if (value == null) {
            throw new IllegalStateException(
                    "output '" + name + "': row " + row + " is NULL, and " + datatype + " has no missing value");
        }
        return value;
    }
}

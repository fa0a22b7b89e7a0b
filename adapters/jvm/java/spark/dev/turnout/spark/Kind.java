package dev.turnout.spark;

import dev.turnout.spi.Datatype;
import dev.turnout.spi.InvalidInput;
import dev.turnout.spi.Tensor;
import dev.turnout.worker.LoadFailed;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.spark.ml.linalg.SQLDataTypes;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.ml.linalg.Vectors;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StringType;
import org.apache.spark.sql.types.UserDefinedType;
import org.apache.spark.unsafe.types.UTF8String;

/** The column types that tensors can carry, and how values pass: as `Row` holds them, and as Catalyst holds them. */
enum Kind {
    BOOLEAN(DataTypes.BooleanType, Datatype.BOOL),
    BYTE(DataTypes.ByteType, Datatype.INT8),
    SHORT(DataTypes.ShortType, Datatype.INT16),
    INTEGER(DataTypes.IntegerType, Datatype.INT32),
    LONG(DataTypes.LongType, Datatype.INT64),
    FLOAT(DataTypes.FloatType, Datatype.FP32),
    DOUBLE(DataTypes.DoubleType, Datatype.FP64),
    STRING(DataTypes.StringType, Datatype.BYTES),
    BINARY(DataTypes.BinaryType, Datatype.BYTES),
    VECTOR(SQLDataTypes.VectorType(), Datatype.FP64);

    /** Spark has no unsigned integers: each goes into the next wider type. */
    private static final Map<Datatype, Kind> SCALARS = Map.ofEntries(
            Map.entry(Datatype.BOOL, BOOLEAN),
            Map.entry(Datatype.INT8, BYTE),
            Map.entry(Datatype.INT16, SHORT),
            Map.entry(Datatype.INT32, INTEGER),
            Map.entry(Datatype.INT64, LONG),
            Map.entry(Datatype.UINT8, SHORT),
            Map.entry(Datatype.UINT16, INTEGER),
            Map.entry(Datatype.UINT32, LONG),
            Map.entry(Datatype.FP32, FLOAT),
            Map.entry(Datatype.FP64, DOUBLE),
            Map.entry(Datatype.BYTES, STRING));

    private static final int VECTOR_FIELDS = 4;

    final DataType type;
    /** The datatype in which values of this kind are answered. */
    final Datatype datatype;

    Kind(DataType type, Datatype datatype) {
        this.type = type;
        this.datatype = datatype;
    }

    /** Returns the kind of column for one value a row. */
    static Kind ofScalar(String name, Datatype datatype) throws LoadFailed {
        Kind kind = SCALARS.get(datatype);
        if (kind == null) {
            throw new LoadFailed("input '" + name + "': Spark has no type for " + datatype);
        }
        return kind;
    }

    /** Returns the kind of a column of this type, or null when tensors do not carry it. */
    static Kind ofColumn(DataType type) {
        if (type instanceof StringType) {
            return STRING;
        }
        for (Kind kind : values()) {
            if (kind.type.equals(type)) {
                return kind;
            }
        }
        return null;
    }

    /**
     * Reads an element as Catalyst holds it; null is NULL. NaN is NULL.
     *
     * @throws InvalidInput for text that is not UTF-8
     */
    Object read(String name, Tensor tensor, int row) {
        switch (this) {
            case BOOLEAN:
                return tensor.booleanAt(row);
            case BYTE:
                return (byte) tensor.longAt(row);
            case SHORT:
                return (short) tensor.longAt(row);
            case INTEGER:
                return (int) tensor.longAt(row);
            case LONG:
                return tensor.longAt(row);
            case FLOAT:
                double narrow = tensor.doubleAt(row);
                return Double.isNaN(narrow) ? null : (Object) (float) narrow;
            case DOUBLE:
                double number = tensor.doubleAt(row);
                return Double.isNaN(number) ? null : (Object) number;
            case STRING:
                byte[] text = tensor.bytesAt(row);
                if (text != null && !Utf8.isValid(text)) {
                    throw new InvalidInput("tensor '" + name + "': row " + row + " is not UTF-8");
                }
                return UTF8String.fromBytes(text);
            case BINARY:
                return tensor.bytesAt(row);
            default:
                return vectors().serialize(vector(tensor, row));
        }
    }

    /** Turns a value as Catalyst holds it into one as `Row` holds it. */
    Object external(Object value) {
        if (value == null) {
            return null;
        }
        return switch (this) {
            case STRING -> value.toString();
            case VECTOR -> vectors().deserialize(value);
            default -> value;
        };
    }

    /** Turns a value as `Row` holds it into what {@link #take} gives. */
    Object taken(Object value) {
        return value instanceof String text ? text.getBytes(StandardCharsets.UTF_8) : value;
    }

    /** Takes a value out of a row of Catalyst, as `Row` would hold it; text as UTF-8 bytes. */
    Object take(InternalRow row, int ordinal) {
        if (row.isNullAt(ordinal)) {
            return null;
        }
        return switch (this) {
            case BOOLEAN -> row.getBoolean(ordinal);
            case BYTE -> row.getByte(ordinal);
            case SHORT -> row.getShort(ordinal);
            case INTEGER -> row.getInt(ordinal);
            case LONG -> row.getLong(ordinal);
            case FLOAT -> row.getFloat(ordinal);
            case DOUBLE -> row.getDouble(ordinal);
            case STRING -> row.getUTF8String(ordinal).getBytes();
            case BINARY -> row.getBinary(ordinal);
            case VECTOR -> vectors().deserialize(row.getStruct(ordinal, VECTOR_FIELDS));
        };
    }

    private static Vector vector(Tensor tensor, int row) {
        int width = (int) tensor.axis(1);
        double[] values = new double[width];
        for (int at = 0; at < width; at++) {
            values[at] = tensor.doubleAt(row * width + at);
        }
        return Vectors.dense(values);
    }

    @SuppressWarnings("unchecked")
    private static UserDefinedType<Vector> vectors() {
        return (UserDefinedType<Vector>) (UserDefinedType<?>) VECTOR.type;
    }
}

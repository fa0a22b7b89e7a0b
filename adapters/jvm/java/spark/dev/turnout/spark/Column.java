package dev.turnout.spark;

import dev.turnout.spi.Datatype;
import dev.turnout.spi.TensorSpec;
import dev.turnout.worker.LoadFailed;
import org.apache.spark.ml.attribute.AttributeGroup;
import org.apache.spark.sql.types.Metadata;
import org.apache.spark.sql.types.StructField;

/**
 * A raw column that a pipeline takes. `width` is the length of a vector, -1 when it is not known; 0 for one value a
 * row. `known`: its type was declared or seen in samples, not guessed.
 */
record Column(String name, Datatype datatype, Kind kind, int width, boolean known) {

    /** A column of one value a row. */
    static Column scalar(String name, Datatype datatype, boolean binary, boolean known) throws LoadFailed {
        Kind kind = Kind.ofScalar(name, datatype);
        return new Column(name, datatype, kind == Kind.STRING && binary ? Kind.BINARY : kind, 0, known);
    }

    /** A column of vectors. */
    static Column vector(String name, int width, boolean known) {
        return new Column(name, Datatype.FP64, Kind.VECTOR, width, known);
    }

    StructField field() {
        // Spark asks the data for a vector's length where the schema does not tell it.
        Metadata metadata =
                width > 0 ? new AttributeGroup(name, width).toMetadata() : Metadata.empty();
        return new StructField(name, kind.type, true, metadata);
    }

    TensorSpec spec() {
        TensorSpec spec = kind == Kind.VECTOR
                ? TensorSpec.of(name, datatype, -1, width)
                : TensorSpec.of(name, datatype, -1);
        return datatype == Datatype.BYTES ? spec.nullable() : spec;
    }

    /** The column as `model.yaml` declares it. */
    String yaml() {
        String shape = kind == Kind.VECTOR ? "[-1, " + width + "]" : "[-1]";
        return "{name: " + Yaml.text(name) + ", datatype: " + datatype + ", shape: " + shape + "}";
    }
}

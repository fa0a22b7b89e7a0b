package com.acme;

import static org.apache.spark.sql.functions.col;
import static org.apache.spark.sql.functions.udf;

import java.util.concurrent.atomic.AtomicInteger;
import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.param.ParamMap;
import org.apache.spark.ml.util.DefaultParamsReader;
import org.apache.spark.ml.util.MLReader;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;

/** A stage that answers something else at each call, and does not say so. */
public final class Drifting extends Transformer {
    private static final long serialVersionUID = 1L;
    private static final AtomicInteger CALLS = new AtomicInteger();

    private final String uid;

    public Drifting(String uid) {
        this.uid = uid;
    }

    public static MLReader<Drifting> read() {
        return new DefaultParamsReader<>();
    }

    @Override
    public String uid() {
        return uid;
    }

    @Override
    public Dataset<Row> transform(Dataset<?> frame) {
        UDF1<Double, Double> drift = x -> x == null ? null : x + CALLS.incrementAndGet();
        return frame.withColumn("prediction", udf(drift, DataTypes.DoubleType).apply(col("x")));
    }

    @Override
    public StructType transformSchema(StructType schema) {
        return schema.add("prediction", DataTypes.DoubleType);
    }

    @Override
    public Drifting copy(ParamMap extra) {
        return this;
    }
}

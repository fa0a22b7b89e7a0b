package dev.turnout.spark;

import dev.turnout.spi.TensorSpec;
import dev.turnout.worker.LoadFailed;
import dev.turnout.worker.LoadRequest;
import dev.turnout.worker.Reasons;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/**
 * A saved pipeline with what it takes and answers, found by giving it an empty frame. `columns` are those of every
 * frame it is given, `inputs` those among them that the outputs depend on; `analysed` is the plan of the outputs.
 */
record Pipeline(
        SparkSession spark,
        PipelineModel model,
        Stages stages,
        List<Column> columns,
        List<Column> inputs,
        List<String> ignored,
        List<Output> outputs,
        LogicalPlan analysed) {

    static Pipeline of(SparkSession spark, PipelineModel model, LoadRequest request, Collection<String> binary)
            throws LoadFailed {
        Stages stages = new Stages(spark, model, request.settings().trusted());
        List<String> wanted = request.outputs() == null
                ? stages.outputs()
                : request.outputs().stream().map(TensorSpec::name).toList();
        Set<String> idle = stages.idle(wanted);
        Columns columns = Columns.of(request, stages, idle, binary);
        Dataset<Row> answered = answered(spark, model, columns.all());
        if (request.outputs() == null) {
            // A probability column may be switched off, or dropped by a later stage.
            wanted = wanted.stream().filter(Arrays.asList(answered.columns())::contains).toList();
        }
        Dataset<Row> selected = select(answered, wanted);
        LogicalPlan analysed = Plans.execution(selected).analyzed();
        List<Column> inputs = columns.named(Plans.referenced(Plans.execution(selected).optimizedPlan()));
        checkKnown(inputs);
        return new Pipeline(
                spark,
                model,
                stages,
                columns.all(),
                inputs,
                Columns.without(columns.all(), inputs, idle),
                outputs(selected.schema(), request, stages),
                analysed);
    }

    StructType schema() {
        return Columns.schema(columns);
    }

    /**
     * Makes the optimised plan of the outputs anew. Its functions keep what they converted last, so that no two
     * threads may share one plan.
     */
    LogicalPlan plan() throws LoadFailed {
        List<String> names = outputs.stream().map(Output::name).toList();
        return Plans.execution(select(answered(spark, model, columns), names)).optimizedPlan();
    }

    /** Returns the wanted columns of an answered frame. */
    static Dataset<Row> select(Dataset<Row> answered, List<String> names) throws LoadFailed {
        List<String> known = Arrays.asList(answered.columns());
        for (String name : names) {
            if (!known.contains(name)) {
                throw new LoadFailed("output '" + name + "': the pipeline has no such column, only " + known);
            }
        }
        return answered.selectExpr(names.stream().map(Pipeline::quoted).toArray(String[]::new));
    }

    /** Returns the same pipeline with the lengths of its vectors. */
    Pipeline withOutputs(List<Output> known) {
        return new Pipeline(spark, model, stages, columns, inputs, ignored, known, analysed);
    }

    private static Dataset<Row> answered(SparkSession spark, PipelineModel model, List<Column> columns)
            throws LoadFailed {
        // An RDD, for the optimiser would answer an empty local table by an empty one, and nothing were left to fold.
        JavaSparkContext context = JavaSparkContext.fromSparkContext(spark.sparkContext());
        Dataset<Row> empty = spark.createDataFrame(context.<Row>emptyRDD(), Columns.schema(columns));
        try {
            return model.transform(empty);
        } catch (Exception error) {
            throw new LoadFailed(
                    "the pipeline does not take these columns (" + Reasons.brief(error)
                            + "); declare all that it takes with their types, as in " + Columns.yaml(columns),
                    error);
        }
    }

    private static void checkKnown(List<Column> inputs) throws LoadFailed {
        if (inputs.isEmpty()) {
            throw new LoadFailed("the outputs depend on no column");
        }
        List<Column> guessed = inputs.stream().filter(column -> !column.known()).toList();
        if (!guessed.isEmpty()) {
            throw new LoadFailed("a saved pipeline does not say the types of its columns, and neither signature nor"
                    + " golden file tells " + Columns.names(guessed) + "; declare them, after checking this guess: "
                    + Columns.yaml(inputs));
        }
    }

    private static List<Output> outputs(StructType schema, LoadRequest request, Stages stages) throws LoadFailed {
        List<Output> outputs = new ArrayList<>();
        for (StructField field : schema.fields()) {
            TensorSpec declared = request.outputs() == null
                    ? null
                    : request.outputs().stream().filter(spec -> spec.name().equals(field.name())).findFirst().get();
            outputs.add(Output.of(field, declared, stages.isPrediction(field.name()), stages.classes(field.name())));
        }
        return outputs;
    }

    private static String quoted(String name) {
        return "`" + name.replace("`", "``") + "`";
    }
}

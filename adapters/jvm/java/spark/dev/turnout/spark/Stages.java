package dev.turnout.spark;

import dev.turnout.spi.Datatype;
import dev.turnout.worker.LoadFailed;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.PredictionModel;
import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.classification.ProbabilisticClassificationModel;
import org.apache.spark.ml.feature.SQLTransformer;
import org.apache.spark.ml.feature.StringIndexerModel;
import org.apache.spark.ml.param.Param;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.StructType;

/**
 * What a pipeline's stages say of themselves: which columns each takes and makes. It is a guess, for a saved pipeline
 * does not keep its schema; what the outputs depend on is told by their plan.
 */
final class Stages {
    private static final List<String> TAKES =
            List.of("inputCol", "inputCols", "featuresCol", "userCol", "itemCol", "itemsCol");
    private static final List<String> MAKES = List.of(
            "outputCol", "outputCols", "predictionCol", "probabilityCol", "rawPredictionCol", "leafCol",
            "topicDistributionCol", "varianceCol", "quantilesCol", "distCol");
    private static final List<String> INDEXED = List.of("inputCol", "inputCols");
    private static final List<String> INDEXES = List.of("outputCol", "outputCols");
    private static final List<String> PREDICTION = List.of("predictionCol");
    private static final List<String> PROBABILITIES = List.of("probabilityCol", "rawPredictionCol");

    /** A stage with the columns it takes and makes. */
    private record Stage(Transformer transformer, Set<String> takes, Set<String> makes) {}

    private final List<Stage> stages = new ArrayList<>();

    /** `trusted`: SQL of the pipeline may do whatever SQL can. Nothing of the pipeline has run before. */
    Stages(SparkSession spark, PipelineModel pipeline, boolean trusted) throws LoadFailed {
        flatten(spark, pipeline, trusted);
    }

    private void flatten(SparkSession spark, PipelineModel pipeline, boolean trusted) throws LoadFailed {
        for (Transformer transformer : pipeline.stages()) {
            if (transformer instanceof PipelineModel inner) {
                flatten(spark, inner, trusted);
                continue;
            }
            Set<String> takes = new LinkedHashSet<>(columns(transformer, TAKES));
            Set<String> makes = new LinkedHashSet<>(columns(transformer, MAKES));
            if (transformer instanceof SQLTransformer sql) {
                Statement statement = Statement.of(spark, sql);
                if (!trusted && !statement.plain()) {
                    throw new LoadFailed("SQL of a stage does more than ask of its own rows, and this folder is not"
                            + " trusted: " + sql.getStatement());
                }
                takes.addAll(statement.takes());
                makes.addAll(statement.makes());
            }
            stages.add(new Stage(transformer, takes, makes));
        }
    }

    /** Raw columns that stages take and none before them makes, in order, with guessed types; null: none that fits. */
    Map<String, Column> raw() throws LoadFailed {
        Map<String, Column> raw = new LinkedHashMap<>();
        Set<String> made = new LinkedHashSet<>();
        for (Stage stage : stages) {
            for (String name : stage.takes()) {
                if (!made.contains(name) && !raw.containsKey(name)) {
                    raw.put(name, guess(stage, name));
                }
            }
            made.addAll(stage.makes());
        }
        return raw;
    }

    /**
     * Columns that only feed indexers whose results nothing uses: labels of the training. Spark's own indexer passes
     * over a column that is not there.
     */
    Set<String> idle(List<String> outputs) {
        Set<String> idle = new LinkedHashSet<>();
        for (Stage stage : stages) {
            if (!(stage.transformer() instanceof StringIndexerModel)) {
                continue;
            }
            List<String> indexed = columns(stage.transformer(), INDEXED);
            List<String> indexes = columns(stage.transformer(), INDEXES);
            for (int at = 0; at < indexed.size(); at++) {
                String index = indexes.get(at);
                if (!outputs.contains(index) && users(index) == 0 && users(indexed.get(at)) == 1) {
                    idle.add(indexed.get(at));
                }
            }
        }
        return idle;
    }

    /** The outputs that are answered when none are declared: those of the last stage that predicts. */
    List<String> outputs() throws LoadFailed {
        for (int at = stages.size() - 1; at >= 0; at--) {
            Transformer stage = stages.get(at).transformer();
            List<String> outputs = new ArrayList<>(columns(stage, PREDICTION));
            if (!outputs.isEmpty()) {
                outputs.addAll(columns(stage, List.of("probabilityCol")));
                return outputs;
            }
        }
        throw new LoadFailed("no stage of the pipeline predicts; name the columns to answer in signature.outputs");
    }

    /** Whether a column is what a stage predicts. */
    boolean isPrediction(String name) {
        return stages.stream().anyMatch(stage -> columns(stage.transformer(), PREDICTION).contains(name));
    }

    /** Length of a column's vectors where they hold a value for each class; -1 otherwise. */
    int classes(String name) {
        for (Stage stage : stages) {
            if (stage.transformer() instanceof ProbabilisticClassificationModel<?, ?> model
                    && columns(model, PROBABILITIES).contains(name)) {
                return model.numClasses();
            }
        }
        return -1;
    }

    /** Texts that an indexer of this column knows. */
    List<String> labels(String column) {
        for (Stage stage : stages) {
            if (stage.transformer() instanceof StringIndexerModel indexer) {
                int at = columns(indexer, INDEXED).indexOf(column);
                if (at >= 0) {
                    return Arrays.asList(indexer.labelsArray()[at]);
                }
            }
        }
        return List.of();
    }

    private long users(String column) {
        return stages.stream().filter(stage -> stage.takes().contains(column)).count();
    }

    private static List<String> columns(Transformer stage, List<String> params) {
        List<String> names = new ArrayList<>();
        for (String name : params) {
            Param<?> param = stage.hasParam(name) ? stage.getParam(name) : null;
            boolean told = param != null && stage.isDefined(param) && !isSet(stage, name + "s");
            Object value = told ? stage.getOrDefault(param) : null;
            if (value instanceof String one && !one.isEmpty()) {
                names.add(one);
            } else if (value instanceof String[] several) {
                names.addAll(Arrays.asList(several));
            }
        }
        return names;
    }

    /** Where `outputCols` is set, the default of `outputCol` means nothing. */
    private static boolean isSet(Transformer stage, String name) {
        return stage.hasParam(name) && stage.isSet(stage.getParam(name));
    }

    /** Returns the first kind of column that the stage's own check of schemas accepts; null when it takes none. */
    private static Column guess(Stage stage, String name) throws LoadFailed {
        Transformer transformer = stage.transformer();
        Column number = Column.scalar(name, Datatype.FP64, false, false);
        if (transformer instanceof SQLTransformer) {
            return number;
        }
        Column text = Column.scalar(name, Datatype.BYTES, false, false);
        int width = transformer instanceof PredictionModel<?, ?> model ? model.numFeatures() : -1;
        Column vector = Column.vector(name, width, false);
        List<Column> tried = transformer instanceof StringIndexerModel
                ? List.of(text)
                : List.of(number, text, vector);
        for (Column column : tried) {
            if (accepts(stage, column.kind())) {
                return column;
            }
        }
        return null;
    }

    private static boolean accepts(Stage stage, Kind kind) {
        StructType schema = new StructType();
        for (String name : stage.takes()) {
            schema = schema.add(name, kind.type);
        }
        try {
            stage.transformer().transformSchema(schema);
            return true;
        } catch (RuntimeException error) {
            return false;
        }
    }
}

package dev.turnout.spark;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Tensor;
import dev.turnout.worker.LoadFailed;
import java.util.ArrayList;
import java.util.List;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;

/** Answers rows by a pipeline folded into one chain of projections. For one thread. */
final class Folding implements Rows {
    private final List<Column> inputs;
    private final List<Output> outputs;
    private final int[] ordinals;
    private final Chain chain;
    private final Object[] values;
    private final InternalRow row;

    /**
     * Compiles the pipeline's plan.
     *
     * @throws UnsupportedOperationException with the name of a node that is not row-wise
     */
    Folding(Pipeline pipeline) throws LoadFailed {
        LogicalPlan plan = pipeline.plan();
        inputs = pipeline.inputs();
        outputs = pipeline.outputs();
        chain = new Chain(plan);
        List<String> layout = Plans.layout(plan);
        ordinals = inputs.stream().mapToInt(column -> layout.indexOf(column.name())).toArray();
        values = new Object[layout.size()];
        row = new GenericInternalRow(values);
    }

    @Override
    public List<Object[]> answer(Batch batch, int from, int to) {
        Tensor[] tensors = new Tensor[inputs.size()];
        for (int at = 0; at < tensors.length; at++) {
            tensors[at] = batch.get(inputs.get(at).name());
        }
        List<Object[]> answers = new ArrayList<>(to - from);
        for (int at = from; at < to; at++) {
            answers.add(answer(tensors, at));
        }
        return answers;
    }

    @Override
    public List<String> droppedBy() {
        return inputs.stream().map(Column::name).filter(chain.droppedBy()::contains).toList();
    }

    private Object[] answer(Tensor[] tensors, int at) {
        for (int column = 0; column < tensors.length; column++) {
            Column input = inputs.get(column);
            values[ordinals[column]] = input.kind().read(input.name(), tensors[column], at);
        }
        InternalRow answered;
        try {
            answered = chain.apply(row);
        } catch (Exception error) {
            // Not only RuntimeException: Scala throws checked exceptions undeclared.
            throw new IllegalStateException("row " + at, error);
        }
        if (answered == null) {
            return null;
        }
        Object[] taken = new Object[outputs.size()];
        for (int output = 0; output < taken.length; output++) {
            taken[output] = outputs.get(output).kind().take(answered, output);
        }
        return taken;
    }
}

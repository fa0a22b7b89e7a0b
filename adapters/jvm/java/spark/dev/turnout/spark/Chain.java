package dev.turnout.spark;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.BasePredicate;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.expressions.NamedExpression;
import org.apache.spark.sql.catalyst.expressions.Predicate;
import org.apache.spark.sql.catalyst.expressions.UnsafeProjection;
import org.apache.spark.sql.catalyst.plans.logical.Filter;
import org.apache.spark.sql.catalyst.plans.logical.LeafNode;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.catalyst.plans.logical.Project;
import scala.collection.immutable.Seq;

/**
 * A row-wise plan as compiled projections and filters, applied one after another: no job, no scheduler, no frame.
 * Not for several threads at once: each step keeps the row that it made last.
 */
final class Chain {
    /** A projection, or a filter with the names of the columns that it looks at. */
    private record Step(UnsafeProjection projection, BasePredicate filter, Set<String> columns) {}

    private final List<Step> steps = new ArrayList<>();
    private Set<String> droppedBy = Set.of();

    /**
     * Compiles an optimised plan.
     *
     * @throws UnsupportedOperationException with the name of a node that is not row-wise
     */
    Chain(LogicalPlan plan) {
        LogicalPlan node = plan;
        while (!(node instanceof LeafNode)) {
            if (node instanceof Project project) {
                steps.add(0, projecting(project));
                node = project.child();
            } else if (node instanceof Filter filter) {
                steps.add(0, filtering(filter));
                node = filter.child();
            } else {
                throw new UnsupportedOperationException(node.nodeName() + " is not row-wise");
            }
        }
    }

    /** Answers a row, valid until the next call; null when a filter drops it. */
    InternalRow apply(InternalRow row) {
        InternalRow current = row;
        for (Step step : steps) {
            if (step.projection() != null) {
                current = step.projection().apply(current);
            } else if (!step.filter().eval(current)) {
                droppedBy = step.columns();
                return null;
            }
        }
        return current;
    }

    /** Columns that the filter looked at which dropped the last row. */
    Set<String> droppedBy() {
        return droppedBy;
    }

    @SuppressWarnings({"unchecked", "rawtypes"}) // a list of named expressions is one of expressions
    private static Step projecting(Project project) {
        Seq<NamedExpression> list = project.projectList();
        return new Step(UnsafeProjection.create((Seq) list, project.child().output()), null, Set.of());
    }

    private static Step filtering(Filter filter) {
        Expression condition = filter.condition();
        BasePredicate compiled = Predicate.create(condition, filter.child().output());
        compiled.initialize(0);
        Set<String> columns = new TreeSet<>();
        scala.collection.Iterator<Attribute> references = condition.references().iterator();
        while (references.hasNext()) {
            columns.add(references.next().name());
        }
        return new Step(null, compiled, columns);
    }
}

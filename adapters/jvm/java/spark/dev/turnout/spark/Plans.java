package dev.turnout.spark;

import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.ExprId;
import org.apache.spark.sql.catalyst.plans.logical.LeafNode;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.execution.QueryExecution;

/** What is asked of a frame's plans. */
final class Plans {
    private Plans() {}

    static QueryExecution execution(Dataset<Row> frame) {
        return ((org.apache.spark.sql.classic.Dataset<Row>) frame).queryExecution();
    }

    /** Names of the raw columns that an optimised plan looks at. */
    static Set<String> referenced(LogicalPlan optimised) {
        Set<ExprId> used = new HashSet<>();
        Seqs.list(optimised.output()).forEach(column -> used.add(column.exprId()));
        addReferences(optimised, used);
        Set<String> names = new LinkedHashSet<>();
        addLeaves(optimised, used, names);
        return names;
    }

    /** Names of the columns that a row-wise plan starts from, in the order of its rows. */
    static List<String> layout(LogicalPlan plan) {
        LogicalPlan node = plan;
        while (!(node instanceof LeafNode)) {
            node = Seqs.list(node.children()).get(0);
        }
        return Seqs.list(node.output()).stream().map(Attribute::name).toList();
    }

    private static void addReferences(LogicalPlan plan, Set<ExprId> used) {
        scala.collection.Iterator<Attribute> references = plan.references().iterator();
        while (references.hasNext()) {
            used.add(references.next().exprId());
        }
        Seqs.list(plan.children()).forEach(child -> addReferences(child, used));
    }

    private static void addLeaves(LogicalPlan plan, Set<ExprId> used, Set<String> names) {
        if (plan instanceof LeafNode) {
            for (Attribute column : Seqs.list(plan.output())) {
                if (used.contains(column.exprId())) {
                    names.add(column.name());
                }
            }
        }
        Seqs.list(plan.children()).forEach(child -> addLeaves(child, used, names));
    }
}

package dev.turnout.spark;

import java.util.function.Consumer;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;

/** Walks over the expressions of plans. */
final class Expressions {
    private Expressions() {}

    /** Shows every expression of a plan, at any depth. */
    static void each(LogicalPlan plan, Consumer<Expression> visit) {
        Seqs.list(plan.expressions()).forEach(expression -> each(expression, visit));
        Seqs.list(plan.children()).forEach(child -> each(child, visit));
    }

    /** Shows an expression and all below it. */
    static void each(Expression expression, Consumer<Expression> visit) {
        visit.accept(expression);
        Seqs.list(expression.children()).forEach(child -> each(child, visit));
    }
}

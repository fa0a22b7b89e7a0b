package dev.turnout.spark;

import java.util.HashSet;
import java.util.Locale;
import java.util.Set;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.ExprId;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.expressions.NamedExpression;
import org.apache.spark.sql.catalyst.expressions.PlanExpression;
import org.apache.spark.sql.catalyst.expressions.ScalaUDF;
import org.apache.spark.sql.catalyst.plans.logical.Filter;
import org.apache.spark.sql.catalyst.plans.logical.LeafNode;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.catalyst.plans.logical.Project;
import org.apache.spark.sql.catalyst.plans.logical.SubqueryAlias;
import org.apache.spark.sql.catalyst.plans.logical.View;
import org.apache.spark.sql.catalyst.trees.TreePattern;

/**
 * Finds what keeps a plan from being answered row by row, once and for all. It reads the analysed plan: in the
 * optimised one the current time has become a literal.
 */
final class Culprits {
    /** Spark ML marks its own functions nondeterministic only to keep the optimiser from moving them. */
    private static final String SPARK_ML = "org.apache.spark.ml.";

    private Culprits() {}

    /** Returns the reason why the plan cannot be folded, or null. Columns that it does not answer do not count. */
    static String find(LogicalPlan plan) {
        Set<ExprId> needed = new HashSet<>();
        Seqs.list(plan.output()).forEach(column -> needed.add(column.exprId()));
        LogicalPlan node = plan;
        while (true) {
            String culprit = null;
            if (node instanceof Project project) {
                culprit = inProject(project, needed);
                node = project.child();
            } else if (node instanceof Filter filter) {
                culprit = culprit(filter.condition());
                addReferences(filter.condition(), needed);
                node = filter.child();
            } else if (node instanceof SubqueryAlias alias) {
                node = alias.child();
            } else if (node instanceof View view) {
                node = view.child();
            } else if (node instanceof LeafNode) {
                return null;
            } else {
                return lower(node.nodeName()) + " is not row-wise";
            }
            if (culprit != null) {
                return culprit;
            }
        }
    }

    private static String inProject(Project project, Set<ExprId> needed) {
        Set<ExprId> below = new HashSet<>();
        for (NamedExpression named : Seqs.list(project.projectList())) {
            if (!needed.contains(named.exprId())) {
                continue;
            }
            Expression expression = (Expression) named;
            String culprit = culprit(expression);
            if (culprit != null) {
                return culprit;
            }
            addReferences(expression, below);
        }
        needed.clear();
        needed.addAll(below);
        return null;
    }

    private static void addReferences(Expression expression, Set<ExprId> into) {
        scala.collection.Iterator<Attribute> references = expression.references().iterator();
        while (references.hasNext()) {
            into.add(references.next().exprId());
        }
    }

    private static String culprit(Expression expression) {
        if (expression instanceof PlanExpression<?>) {
            return "a subquery is not row-wise";
        }
        if (Seqs.list(expression.nodePatterns()).contains(TreePattern.CURRENT_LIKE())) {
            return name(expression) + "() changes from call to call";
        }
        boolean childrenDetermined = true;
        for (Expression child : Seqs.list(expression.children())) {
            String culprit = culprit(child);
            if (culprit != null) {
                return culprit;
            }
            childrenDetermined &= child.deterministic();
        }
        boolean ownFault = !expression.deterministic() && childrenDetermined && !isSparkMl(expression);
        return ownFault ? name(expression) + "() is nondeterministic" : null;
    }

    private static boolean isSparkMl(Expression expression) {
        return expression instanceof ScalaUDF udf && udf.function().getClass().getName().startsWith(SPARK_ML);
    }

    private static String name(Expression expression) {
        return expression.prettyName();
    }

    private static String lower(String nodeName) {
        return nodeName.toLowerCase(Locale.ROOT);
    }
}

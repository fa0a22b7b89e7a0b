package dev.turnout.spark;

import dev.turnout.worker.LoadFailed;
import dev.turnout.worker.Reasons;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.apache.spark.ml.feature.SQLTransformer;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.catalyst.analysis.UnresolvedAttribute;
import org.apache.spark.sql.catalyst.analysis.UnresolvedFunction;
import org.apache.spark.sql.catalyst.analysis.UnresolvedRelation;
import org.apache.spark.sql.catalyst.expressions.Alias;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.expressions.PlanExpression;
import org.apache.spark.sql.catalyst.parser.ParseException;
import org.apache.spark.sql.catalyst.plans.logical.Aggregate;
import org.apache.spark.sql.catalyst.plans.logical.Filter;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.catalyst.plans.logical.Project;
import org.apache.spark.sql.catalyst.plans.logical.SubqueryAlias;

/**
 * What a SQL statement of a pipeline names: columns that it takes and makes (`SELECT *` names none). `plain`: it asks
 * of its own rows alone, and calls nothing by name.
 */
record Statement(Set<String> takes, Set<String> makes, boolean plain) {
    private static final String MARK = "__THIS__";
    private static final String TABLE = "this_frame";
    /** Functions that call any method of any class. */
    private static final Set<String> CALLING = Set.of("reflect", "java_method", "try_reflect");

    static Statement of(SparkSession spark, SQLTransformer stage) throws LoadFailed {
        LogicalPlan plan = parsed(spark, stage.getStatement());
        Set<String> takes = new LinkedHashSet<>();
        Set<String> makes = new LinkedHashSet<>();
        boolean[] plain = {isPlain(plan)};
        Expressions.each(plan, expression -> {
            plain[0] &= isPlain(expression);
            if (expression instanceof UnresolvedAttribute attribute) {
                takes.add(last(Seqs.list(attribute.nameParts())));
            } else if (expression instanceof Alias alias) {
                makes.add(alias.name());
            }
        });
        takes.removeAll(makes);
        return new Statement(takes, makes, plain[0]);
    }

    /** Knows what is harmless, not what does harm: commands, other tables and files, and functions of tables are not. */
    private static boolean isPlain(LogicalPlan plan) {
        if (plan instanceof UnresolvedRelation relation) {
            return Seqs.list(relation.multipartIdentifier()).equals(List.of(TABLE));
        }
        boolean known = plan instanceof Project
                || plan instanceof Filter
                || plan instanceof Aggregate
                || plan instanceof SubqueryAlias;
        return known && Seqs.list(plan.children()).stream().allMatch(Statement::isPlain);
    }

    private static boolean isPlain(Expression expression) {
        if (expression instanceof UnresolvedFunction function) {
            return !CALLING.contains(last(Seqs.list(function.nameParts())).toLowerCase(Locale.ROOT));
        }
        return !(expression instanceof PlanExpression<?>);
    }

    private static String last(List<String> parts) {
        return parts.get(parts.size() - 1);
    }

    private static LogicalPlan parsed(SparkSession spark, String statement) throws LoadFailed {
        try {
            return ((org.apache.spark.sql.classic.SparkSession) spark)
                    .sessionState()
                    .sqlParser()
                    .parsePlan(statement.replace(MARK, TABLE));
        } catch (ParseException error) {
            throw new LoadFailed("SQL of a stage: " + Reasons.brief(error), error);
        }
    }
}

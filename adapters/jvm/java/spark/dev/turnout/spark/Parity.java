package dev.turnout.spark;

import dev.turnout.spi.Batch;
import java.util.Arrays;
import java.util.List;
import org.apache.spark.ml.linalg.Vector;

/** Compares folded answers with those of `transform`, row by row. */
final class Parity {
    static final double TOLERANCE = 1e-12;
    /** More rows of a golden file than these would keep a version from starting. */
    static final int MAX_ROWS = 256;

    private static final int MAX_SINGLE_ROWS = 24;

    private final List<Output> outputs;
    private double worst;

    Parity(List<Output> outputs) {
        this.outputs = outputs;
    }

    /** Largest difference seen, relative to values above 1. */
    double worst() {
        return worst;
    }

    /** Returns the first difference beyond {@link #TOLERANCE}, or null. */
    String difference(Batch rows, Rows folded, Rows transformed) {
        int count = Math.min(rows.rows(), MAX_ROWS);
        List<Object[]> expected;
        try {
            expected = transformed.answer(rows, 0, count);
        } catch (Exception error) {
            // Some row makes it throw: single rows tell which.
            return singly(rows, Math.min(count, MAX_SINGLE_ROWS), folded, transformed);
        }
        for (int row = 0; row < count; row++) {
            String difference = difference(row, expected.get(row), answer(rows, row, folded));
            if (difference != null) {
                return difference;
            }
        }
        return null;
    }

    private String singly(Batch rows, int count, Rows folded, Rows transformed) {
        for (int row = 0; row < count; row++) {
            String difference = difference(row, answer(rows, row, transformed), answer(rows, row, folded));
            if (difference != null) {
                return difference;
            }
        }
        return null;
    }

    /** Returns the values of one row, null where it is dropped, and the failure itself where it throws. */
    private static Object answer(Batch rows, int row, Rows way) {
        try {
            return way.answer(rows, row, row + 1).get(0);
        } catch (Exception error) {
            return error;
        }
    }

    private String difference(int row, Object expected, Object got) {
        if (expected instanceof Object[] wanted && got instanceof Object[] given) {
            for (int at = 0; at < wanted.length; at++) {
                if (!agree(wanted[at], given[at])) {
                    return "row " + row + " of the samples, " + outputs.get(at).name() + ": transform answers "
                            + text(wanted[at]) + ", folded " + text(given[at]);
                }
            }
            return null;
        }
        boolean bothThrow = expected instanceof Exception && got instanceof Exception;
        return bothThrow || expected == got
                ? null
                : "row " + row + " of the samples: transform " + outcome(expected) + ", folded " + outcome(got);
    }

    private boolean agree(Object wanted, Object given) {
        if (wanted instanceof Vector left && given instanceof Vector right) {
            boolean agree = left.size() == right.size();
            for (int at = 0; agree && at < left.size(); at++) {
                agree = close(left.apply(at), right.apply(at));
            }
            return agree;
        }
        if (wanted instanceof Double || wanted instanceof Float) {
            return given != null && close(((Number) wanted).doubleValue(), ((Number) given).doubleValue());
        }
        return wanted instanceof byte[] left && given instanceof byte[] right
                ? Arrays.equals(left, right)
                : java.util.Objects.equals(wanted, given);
    }

    private boolean close(double wanted, double given) {
        if (Double.compare(wanted, given) == 0 || wanted == given) {
            return true;
        }
        double difference = Math.abs(wanted - given) / Math.max(1, Math.abs(wanted));
        worst = Math.max(worst, difference);
        return difference <= TOLERANCE;
    }

    private static String outcome(Object answer) {
        return answer == null ? "drops it" : answer instanceof Exception ? "throws" : "answers it";
    }

    private static String text(Object value) {
        return value instanceof byte[] bytes ? Arrays.toString(bytes) : String.valueOf(value);
    }
}

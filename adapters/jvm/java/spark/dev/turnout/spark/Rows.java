package dev.turnout.spark;

import dev.turnout.spi.Batch;
import java.util.List;

/** A way to answer rows: one array of values for each, in the order of the outputs; null for a row that is dropped. */
interface Rows {
    /** Answers the rows from `from` up to, not including, `to`. */
    List<Object[]> answer(Batch inputs, int from, int to) throws Exception;

    /** Inputs that the filter looked at which dropped the last row, as far as they are known. */
    List<String> droppedBy();
}

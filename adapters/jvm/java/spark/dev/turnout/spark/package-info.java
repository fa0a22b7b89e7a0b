/**
 * Saved Spark PipelineModels, answered row by row.
 *
 * <p>Compiled on first use against the user's own Spark jars, as Catalyst keeps no stable API. A fitted pipeline is
 * turned into Catalyst projections once ({@link dev.turnout.spark.Folding}); what is not row-wise is answered by
 * {@code transform} ({@link dev.turnout.spark.Transforming}), some thousand times slower, and says so.
 */
package dev.turnout.spark;

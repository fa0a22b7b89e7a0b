package com.acme

import dev.turnout.spi.{Batch, Datatype, Model, Tensor, TensorSpec}
import java.nio.file.{Files, Path}
import java.util.{List => JavaList, Map => JavaMap}

final case class Coefficients(intercept: Double, weights: Vector[Double]) {
  def probability(x: Array[Double]): Double =
    1 / (1 + math.exp(-(intercept + weights.iterator.zip(x.iterator).map { case (w, v) => w * v }.sum)))
}

/** A logistic regression with its weights in a text file beside the jar. */
final class Logit extends Model {
  private var coefficients = Coefficients(0, Vector.empty)

  override def load(directory: Path, options: JavaMap[String, String]): Unit = {
    val name = options.getOrDefault("weights", "weights.txt")
    val numbers = Files.readString(directory.resolve(name)).trim.split("\\s+").toVector.map(_.toDouble)
    coefficients = Coefficients(numbers.head, numbers.tail)
  }

  override def inputs(): JavaList[TensorSpec] = JavaList.of(TensorSpec.of("x", Datatype.FP64, -1, coefficients.weights.size))

  override def outputs(): JavaList[TensorSpec] = JavaList.of(TensorSpec.of("probability", Datatype.FP64, -1))

  override def predict(batch: Batch): Batch = {
    val rows = batch.get("x").doubles().grouped(coefficients.weights.size)
    Batch.of("probability", Tensor.ofDoubles(rows.map(coefficients.probability).toArray))
  }
}

/**
 * What a model jar implements to be served by Turnout, in Java or Scala.
 *
 * <p>A jar holds one {@link dev.turnout.spi.Model}, named in {@code META-INF/services/dev.turnout.spi.Model} or by
 * the option {@code main}. This package is all that a model sees of Turnout, and depends on nothing but the JDK.
 */
package dev.turnout.spi;

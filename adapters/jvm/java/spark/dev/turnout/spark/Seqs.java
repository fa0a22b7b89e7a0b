package dev.turnout.spark;

import java.util.List;
import scala.jdk.javaapi.CollectionConverters;

/** Scala's sequences as lists. */
final class Seqs {
    private Seqs() {}

    static <T> List<T> list(scala.collection.Seq<T> seq) {
        return CollectionConverters.asJava(seq);
    }
}

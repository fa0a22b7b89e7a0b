package dev.turnout.worker;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/** The worker's own folder for temporary files. */
final class Scratch {
    private Scratch() {}

    /** Empties the folder of what an earlier worker left, and has the JDK and libraries put temporary files there. */
    static void prepare(Path folder) throws IOException {
        if (Files.exists(folder)) {
            try (Stream<Path> found = Files.walk(folder)) {
                List<Path> deepestFirst = found.sorted(Comparator.reverseOrder()).toList();
                for (Path path : deepestFirst) {
                    Files.delete(path);
                }
            }
        }
        Path temporary = Files.createDirectories(folder.resolve("tmp"));
        System.setProperty("java.io.tmpdir", temporary.toString());
    }
}

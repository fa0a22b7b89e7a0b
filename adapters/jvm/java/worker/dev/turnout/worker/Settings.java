package dev.turnout.worker;

import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * What the command line says. `kind` is `spi` or `spark`, `jars` those of the model, `threads` how many predictions
 * run at once, `scratch` a folder of this worker's own, `trusted` whether code in the artifact may run.
 */
public record Settings(String kind, Path socket, Path scratch, List<Path> jars, int threads, boolean trusted) {

    /** Reads `--name value` pairs. */
    static Settings of(String[] arguments) {
        Map<String, String> given = new HashMap<>();
        for (int at = 0; at + 1 < arguments.length; at += 2) {
            given.put(arguments[at], arguments[at + 1]);
        }
        Path socket = Path.of(required(given, "--socket"));
        String jars = given.getOrDefault("--jars", "");
        return new Settings(
                required(given, "--kind"),
                socket,
                Path.of(required(given, "--scratch")).resolve(socket.getFileName()),
                jars.isEmpty() ? List.of() : List.of(jars.split(":")).stream().map(Path::of).toList(),
                Integer.parseInt(given.getOrDefault("--threads", "1")),
                Boolean.parseBoolean(given.getOrDefault("--trusted", "false")));
    }

    private static String required(Map<String, String> given, String name) {
        String value = given.get(name);
        if (value == null) {
            throw new IllegalArgumentException("usage: --kind spi|spark --scratch DIR [--jars A:B] [--threads N]"
                    + " [--trusted true] --socket PATH; missing: " + name);
        }
        return value;
    }
}

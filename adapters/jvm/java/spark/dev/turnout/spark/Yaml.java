package dev.turnout.spark;

import java.util.Locale;
import java.util.Set;
import java.util.regex.Pattern;

/** Text for a line of YAML. */
final class Yaml {
    private static final Pattern PLAIN = Pattern.compile("[A-Za-z_][A-Za-z0-9_]*");

    /** Words that YAML 1.1 reads as something else than text. */
    private static final Set<String> TAKEN = Set.of("y", "n", "yes", "no", "true", "false", "on", "off", "null");

    private Yaml() {}

    static String text(String value) {
        boolean plain = PLAIN.matcher(value).matches() && !TAKEN.contains(value.toLowerCase(Locale.ROOT));
        return plain ? value : "'" + value.replace("'", "''") + "'";
    }
}

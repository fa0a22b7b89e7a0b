package dev.turnout.worker;

/** Puts a failure into one line for the log. */
public final class Reasons {
    private static final int MAX_DEPTH = 8;

    private Reasons() {}

    /** The failure and its causes, each once. */
    public static String of(Throwable error) {
        StringBuilder text = new StringBuilder(one(error));
        Throwable cause = error.getCause();
        for (int depth = 0; cause != null && depth < MAX_DEPTH; depth++) {
            String next = one(cause);
            if (text.indexOf(next) < 0) {
                text.append("; caused by ").append(next);
            }
            cause = cause.getCause();
        }
        return text.toString();
    }

    /** The first line of the failure alone. */
    public static String brief(Throwable error) {
        return one(error).lines().findFirst().orElse("");
    }

    private static String one(Throwable error) {
        String message = error.getMessage();
        String name = error.getClass().getSimpleName();
        return message == null || message.isBlank() ? name : name + ": " + message.strip();
    }
}

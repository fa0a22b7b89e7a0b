package dev.turnout.worker;

/** A version cannot be served; the message is the one-line reason that operators see. */
public final class LoadFailed extends Exception {
    private static final long serialVersionUID = 1L;

    public LoadFailed(String message) {
        super(message);
    }

    public LoadFailed(String message, Throwable cause) {
        super(message, cause);
    }
}

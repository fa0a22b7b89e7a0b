package dev.turnout.worker;

/** A frame that cannot be read; the connection ends. */
final class BadFrame extends Exception {
    private static final long serialVersionUID = 1L;

    BadFrame(String message) {
        super(message);
    }
}

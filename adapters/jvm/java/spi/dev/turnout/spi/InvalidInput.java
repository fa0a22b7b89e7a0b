package dev.turnout.spi;

/** The caller's fault. The message is shown to the caller: name the tensor and the row. */
public class InvalidInput extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public InvalidInput(String message) {
        super(message);
    }
}

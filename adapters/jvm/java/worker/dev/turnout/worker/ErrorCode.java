package dev.turnout.worker;

import java.util.Locale;

/** What an ERROR frame may say. */
enum ErrorCode {
    INVALID_INPUT,
    MODEL_FAULT,
    CANCELLED,
    DEADLINE,
    OVERLOADED,
    NOT_READY,
    LOAD_FAILED,
    UNSUPPORTED,
    BAD_FRAME;

    String wire() {
        return name().toLowerCase(Locale.ROOT);
    }
}

package dev.turnout.worker;

/** Kinds of frames, by their number on the wire. */
enum FrameType {
    HELLO(1),
    LOAD(2),
    LOADED(3),
    DESCRIBE(4),
    PREDICT(5),
    RESULT(6),
    ERROR(7),
    PING(8),
    PONG(9),
    CANCEL(10),
    DRAIN(11);

    private static final FrameType[] BY_CODE = values();

    final int code;

    FrameType(int code) {
        this.code = code;
    }

    /** Returns the type with this number, or null. */
    static FrameType ofCode(int code) {
        return code >= 1 && code <= BY_CODE.length ? BY_CODE[code - 1] : null;
    }
}

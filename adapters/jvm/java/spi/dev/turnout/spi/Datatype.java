package dev.turnout.spi;

/** The datatypes of the Open Inference Protocol v2, and BF16. {@link #code} is their number in worker frames. */
public enum Datatype {
    BOOL(1, 1),
    UINT8(2, 1),
    UINT16(3, 2),
    UINT32(4, 4),
    UINT64(5, 8),
    INT8(6, 1),
    INT16(7, 2),
    INT32(8, 4),
    INT64(9, 8),
    FP16(10, 2),
    BF16(11, 2),
    FP32(12, 4),
    FP64(13, 8),
    BYTES(14, 0);

    private static final Datatype[] BY_CODE = values();

    private final int code;
    private final int width;

    Datatype(int code, int width) {
        this.code = code;
        this.width = width;
    }

    /** The number of this datatype in worker frames. */
    public int code() {
        return code;
    }

    /** Bytes of one element; 0 for BYTES, whose elements differ. */
    public int width() {
        return width;
    }

    /** Whether it is one of the four floating-point datatypes. */
    public boolean isFloat() {
        return this == FP64 || this == FP32 || this == FP16 || this == BF16;
    }

    /** Whether it is one of the eight integer datatypes. */
    public boolean isInteger() {
        return code >= UINT8.code && code <= INT64.code;
    }

    /** Returns the datatype with this number, or null when there is none. */
    public static Datatype ofCode(int code) {
        return code >= 1 && code <= BY_CODE.length ? BY_CODE[code - 1] : null;
    }
}

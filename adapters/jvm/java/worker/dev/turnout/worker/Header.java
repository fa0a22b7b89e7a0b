package dev.turnout.worker;

import java.nio.ByteBuffer;

/** The fixed part of a frame. Lengths in bytes; `deadlineMs` is milliseconds left, {@link #NO_DEADLINE} for none. */
record Header(long length, int type, int version, long id, int deadlineMs) {
    static final int BYTES = 24;
    static final int PROTOCOL = 1;
    static final long MAX_LENGTH = 1L << 30;
    static final int NO_DEADLINE = 0xFFFFFFFF;

    /** Reads a header and leaves the buffer behind it. */
    static Header read(ByteBuffer from) {
        long length = Integer.toUnsignedLong(from.getInt());
        int type = Byte.toUnsignedInt(from.get());
        int version = Byte.toUnsignedInt(from.get());
        from.getShort();
        long id = from.getLong();
        int deadlineMs = from.getInt();
        from.getInt();
        return new Header(length, type, version, id, deadlineMs);
    }

    /** Writes the header of an answer. */
    static void write(ByteBuffer into, int length, FrameType type, long id) {
        into.putInt(length).put((byte) type.code).put((byte) PROTOCOL).putShort((short) 0);
        into.putLong(id).putInt(0).putInt(0);
    }
}

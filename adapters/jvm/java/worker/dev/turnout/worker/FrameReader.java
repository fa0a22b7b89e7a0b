package dev.turnout.worker;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SocketChannel;

/** Cuts what a connection brings into frames. One read may bring many frames, and a frame may take many reads. */
final class FrameReader {
    private static final int CHUNK_BYTES = 256 * 1024;

    private final ByteBuffer chunk = ByteBuffer.allocateDirect(CHUNK_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    private Header header;
    private byte[] body;
    private int filled;
    private long toSkip;

    /** What is done with frames. */
    interface Sink {
        /**
         * Says whether there is room for a frame's payload; without it the payload is read and thrown away.
         *
         * @throws BadFrame when nothing more is to be read
         */
        boolean admit(Header header) throws BadFrame;

        /** Takes a whole frame. */
        void frame(Header header, ByteBuffer payload) throws BadFrame;

        /** Takes a frame that was not admitted. */
        void refused(Header header);
    }

    /** Makes one read and hands on every frame that is whole. Returns false when the peer has closed. */
    boolean readOnce(SocketChannel channel, Sink sink) throws IOException, BadFrame {
        if (channel.read(chunk) < 0) {
            return false;
        }
        chunk.flip();
        while (step(sink)) {
            continue;
        }
        chunk.compact();
        return true;
    }

    /** The header of the frame that is under way, for the bytes of it that were admitted; null between frames. */
    Header unfinished() {
        return body == null ? null : header;
    }

    private boolean step(Sink sink) throws BadFrame {
        if (header == null) {
            if (chunk.remaining() < Header.BYTES) {
                return false;
            }
            Header next = Header.read(chunk);
            if (sink.admit(next)) {
                body = new byte[(int) next.length()];
            } else {
                toSkip = next.length();
            }
            header = next;
            filled = 0;
        }
        return body == null ? skip(sink) : fill(sink);
    }

    private boolean fill(Sink sink) throws BadFrame {
        int take = Math.min(chunk.remaining(), body.length - filled);
        chunk.get(body, filled, take);
        filled += take;
        if (filled < body.length) {
            return false;
        }
        ByteBuffer whole = ByteBuffer.wrap(body).order(ByteOrder.LITTLE_ENDIAN);
        Header of = header;
        header = null;
        body = null;
        sink.frame(of, whole);
        return true;
    }

    private boolean skip(Sink sink) {
        int take = (int) Math.min(chunk.remaining(), toSkip);
        chunk.position(chunk.position() + take);
        toSkip -= take;
        if (toSkip > 0) {
            return false;
        }
        Header of = header;
        header = null;
        sink.refused(of);
        return true;
    }
}

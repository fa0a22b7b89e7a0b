package dev.turnout.worker;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.ArrayDeque;

/** Answers on their way to one peer. Written by several threads; what was gathered goes out in one write. */
final class Outbox {
    private static final int CHUNK_BYTES = 256 * 1024;

    private final SocketChannel channel;
    private final long bound;
    private final ByteBuffer chunk = ByteBuffer.allocateDirect(CHUNK_BYTES);
    private final ArrayDeque<ByteBuffer> waiting = new ArrayDeque<>();
    private long bytes;

    /** `bound`: bytes that may wait for a peer that does not read. */
    Outbox(SocketChannel channel, long bound) {
        this.channel = channel;
        this.bound = bound;
    }

    /** Adds a frame; {@link #flush} sends it. Returns false when the peer has let too much pile up. */
    synchronized boolean add(ByteBuffer frame) {
        waiting.add(frame);
        bytes += frame.remaining();
        return bytes <= bound;
    }

    /** Writes what the peer takes now, without waiting. Returns whether nothing is left. */
    synchronized boolean flush() throws IOException {
        while (true) {
            fill();
            if (chunk.position() == 0) {
                return true;
            }
            chunk.flip();
            bytes -= channel.write(chunk);
            boolean stuck = chunk.hasRemaining();
            chunk.compact();
            if (stuck) {
                return false;
            }
        }
    }

    private void fill() {
        while (chunk.hasRemaining() && !waiting.isEmpty()) {
            ByteBuffer next = waiting.peek();
            if (next.remaining() <= chunk.remaining()) {
                chunk.put(waiting.poll());
                continue;
            }
            int take = chunk.remaining();
            chunk.put(next.slice(next.position(), take));
            next.position(next.position() + take);
        }
    }
}
